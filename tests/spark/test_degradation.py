"""The model's scores against those of its training."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from bronze_rows import shipped_contract
from scipy import stats

from streaming_pipeline.core import tables
from streaming_pipeline.monitoring.scores import Scores, judge_scores, reference


def gold_rows(version, days, rng, shift=0.0, count=3_000):
    """Scored events of these days as rows of gold, and their scores."""
    scores = rng.normal(0.15 + shift, 0.05, count * len(days))
    times = [day + timedelta(seconds=86_399 * n / count) for day in days for n in range(count)]
    frame = pd.DataFrame({"timestamp": times, "anomaly_score": scores, "anomaly_flag": np.where(scores < 0, -1, 1).astype("int32")})
    return frame.assign(model_name="m", model_version=version, event_date=[time.date() for time in times])


def test_scores_are_held_against_those_of_their_models_training_day_by_day(spark, offline_settings):
    settings, contract, rng = offline_settings, shipped_contract(), np.random.default_rng(3)
    tables.create_missing(spark, settings, [tables.gold_anomaly_predictions(contract), tables.BASELINES])
    first = datetime(2026, 3, 1, tzinfo=UTC)
    days = [first + timedelta(days=n) for n in range(6)]
    trained = rng.normal(0.15, 0.05, 20_000)
    tables.append_rows(spark, settings, tables.BASELINES, [reference(trained, np.zeros(len(trained)), "m", "7").to_row(None, "r", first)])
    at = datetime(2026, 3, 9, tzinfo=UTC)
    usual, odd = gold_rows("7", days[:4], rng), gold_rows("7", days[4:], rng, shift=-0.04)
    unknown = gold_rows("6", days, rng, shift=-0.1, count=200)  # of a version whose training left nothing behind
    for part, scored_at in ((usual[::2], at), (usual[1::2], at + timedelta(hours=1)), (odd, at + timedelta(hours=2)), (unknown, at)):
        rows = spark.createDataFrame(part.assign(scored_at=scored_at))
        tables.append(settings, "gold_anomaly_predictions", rows)

    state = Scores()
    scored = judge_scores(spark, settings, contract, state, at)
    flagged = sum(int((part["anomaly_flag"] == -1).sum()) for part in (usual, odd, unknown))
    assert (scored.records, scored.flagged) == (len(usual) + len(odd) + len(unknown), flagged)
    by_day = {(one.window - first.toordinal() + datetime(1970, 1, 1).toordinal(), one.metric): one for one in scored.judged}
    assert {day for day, _ in by_day} == {1, 2, 3, 4}  # the first began somewhere, the last one may go on
    for (day, metric), one in by_day.items():
        assert (one.comparison, one.table_name, one.baseline_id, one.records) == ("training", "gold_anomaly_predictions", 7, 3_000)
        assert one.is_drift == (day == 4 and metric in ("psi", "ks", "mean_shift")), one
    exact = stats.ks_2samp(odd["anomaly_score"][:3_000], trained).statistic
    assert by_day[4, "ks"].value == pytest.approx(exact, abs=0.01)

    # Each row once: nothing is read again, and a state that was written down goes on as it was.
    again = Scores.from_json(json.loads(json.dumps(state.to_json())))
    assert judge_scores(spark, settings, contract, again, at).records == 0
    late = gold_rows("7", [days[5], first + timedelta(days=6)], rng, shift=-0.04)
    tables.append(settings, "gold_anomaly_predictions", spark.createDataFrame(late.assign(scored_at=at + timedelta(hours=3))))
    scored = judge_scores(spark, settings, contract, again, at)
    assert {one.records for one in scored.judged} == {6_000} and [one.is_drift for one in scored.judged if one.metric == "psi"] == [True]


def test_scores_that_differ_by_weekday_are_held_against_those_of_their_weekday(spark, offline_settings):
    settings, contract, rng = offline_settings, shipped_contract(), np.random.default_rng(4)
    tables.create_missing(spark, settings, [tables.gold_anomaly_predictions(contract), tables.BASELINES])
    first = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday

    def days(numbers, version, shift=lambda _: 0.0):
        made = [(first + timedelta(days=n), -0.04 * ((n % 7) >= 5) + shift(n)) for n in numbers]
        return pd.concat([gold_rows(version, [day], rng, shift=by) for day, by in made])

    for version, trained in (("1", days(range(14), "1")), ("2", days(range(8), "2"))):
        seconds = np.array([time.timestamp() for time in trained["timestamp"]])
        row = reference(trained["anomaly_score"].to_numpy(), seconds, "m", version).to_row(None, "r", first)
        tables.append_rows(spark, settings, tables.BASELINES, [row])
    at = first + timedelta(days=40)
    later = pd.concat([days(range(20, 30), "1", lambda n: -0.04 * (n == 25)), days(range(20, 30), "2")])
    tables.append(settings, "gold_anomaly_predictions", spark.createDataFrame(later.assign(scored_at=at)))

    judged = judge_scores(spark, settings, contract, Scores(), at).judged
    epoch = (first - datetime(1970, 1, 1, tzinfo=UTC)).days
    seen = {
        version: {one.window - epoch: one.is_drift for one in judged if (one.baseline_id, one.metric) == (version, "psi")}
        for version in (1, 2)
    }
    assert seen[1] == {day: day == 25 for day in range(21, 29)}, "weekends are strange to nobody, a Friday that is like them is"
    assert seen[2] == {day: False for day in range(21, 29) if day % 7}, "of Mondays its training saw no whole one"
