"""Figures of the pipeline against earlier looks, and the model's scores against those of its training."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from bronze_rows import shipped_contract
from scipy import stats

from streaming_pipeline.core import tables
from streaming_pipeline.monitoring.degradation import ENOUGH_LOOKS, MOST_LOOKS, Figures, judge_figures
from streaming_pipeline.monitoring.scores import Scores, judge_scores, reference

NAMES = ("silver_yield_pct", "late_pct", "lateness_p95_seconds", "silver_records_per_second", "flag_rate_pct", "outlier_pct")
USUAL = dict(zip(NAMES, (99.5, 0.5, 20.0, 40_000.0, 1.0, 0.4), strict=True))
BAD = dict(zip(NAMES, (90.0, 4.0, 400.0, 9_000.0, 5.0, 3.0), strict=True))
GOOD = dict(zip(NAMES, (100.0, 0.0, 1.0, 90_000.0, 0.1, 0.0), strict=True))


def figures(values, records=2_000):
    return Figures(values, dict.fromkeys(values, records))


def looks(count, records=2_000, seed=0):
    """Figures of looks in which nothing but chance changes."""
    rng = np.random.default_rng(seed)
    shares = {name: 100 * rng.binomial(records, value / 100, count) / records for name, value in USUAL.items() if name.endswith("pct")}
    others = {name: value * rng.lognormal(0, 0.15, count) for name, value in USUAL.items() if not name.endswith("pct")}
    return [figures(values, records) for values in pd.DataFrame({**shares, **others}).to_dict("records")]


@pytest.mark.parametrize("name", USUAL)
def test_a_figure_that_is_worse_is_found_and_one_that_is_better_is_none(name):
    history = looks(30)
    [worse] = judge_figures(figures({**USUAL, name: BAD[name]}), history)
    assert (worse.name, worse.observed) == (name, BAD[name])
    assert worse.usual == pytest.approx(np.median([one.values[name] for one in history]))
    assert judge_figures(figures({**USUAL, name: GOOD[name]}), history) == []


def test_without_enough_looks_or_records_nothing_is_said():
    assert judge_figures(figures(BAD), looks(ENOUGH_LOOKS - 1)) == []
    assert len(judge_figures(figures(BAD), looks(ENOUGH_LOOKS))) == len(BAD)
    assert judge_figures(figures(BAD, 50), looks(30)) == []
    assert judge_figures(figures({}), looks(30)) == []
    assert judge_figures(figures(BAD), [figures({})] * 30) == []


def test_a_rate_is_held_against_looks_at_about_as_many_records():
    slow = {"silver_records_per_second": 900.0}
    history = looks(30, 100_000)
    assert judge_figures(figures(slow, 1_000), history) == []
    assert len(judge_figures(figures(slow, 90_000), history)) == 1


def test_what_stays_so_becomes_usual():
    history, said = looks(MOST_LOOKS), []
    for _ in range(MOST_LOOKS):
        said.append(bool(judge_figures(figures(BAD), history)))
        history = [figures(BAD), *history]
    assert said[0] and said[10] and not said[-1]


@pytest.mark.parametrize("records", [100, 2_000, 100_000])
def test_chance_alone_is_no_degradation(records):
    said = 0
    for seed in range(20):
        history = looks(MOST_LOOKS, records, seed)
        said += sum(len(judge_figures(one, history)) for one in looks(25, records, 1_000 + seed))
    assert said <= 1  # of 3,000 figures


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
