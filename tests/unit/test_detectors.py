"""What detectors remember, and what they find; against numpy and scipy on the same values."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy import stats

from streaming_pipeline.detectors import DETECTORS, gap
from streaming_pipeline.detectors.rhythm import Rhythm, residuals
from streaming_pipeline.detectors.summary import Summary
from streaming_pipeline.events import synthetic
from streaming_pipeline.monitoring.arrivals import Watch

EDGES = np.linspace(-3, 3, 61)
DAY = 1440


def gaussian(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size)


def test_summaries_of_parts_merge_to_that_of_the_whole():
    values = np.random.default_rng(1).lognormal(3, 1, 30_000) + 1e6
    edges = np.quantile(values, np.linspace(0.05, 0.95, 19))
    whole = Summary.of(values, edges)
    merged = Summary.empty(edges)
    for part in np.array_split(values, [1, 1, 500, 29_000]):
        merged = merged.merge(Summary.of(part, edges))
    assert np.array_equal(merged.count, whole.count)
    assert (merged.lowest, merged.highest) == (values.min(), values.max())
    assert merged.mean == pytest.approx(values.mean(), rel=1e-12)
    assert merged.variance == pytest.approx(values.var(), rel=1e-9)
    again = Summary.from_json(json.loads(json.dumps(merged.to_json())), edges)
    assert np.array_equal(again.m2, merged.m2) and (again.mean, again.highest) == (merged.mean, merged.highest)


def test_quantiles_are_within_the_share_of_their_bin():
    values = np.random.default_rng(2).gamma(2.0, 5.0, 20_000)
    summary = Summary.of(values, np.quantile(values, np.linspace(0.05, 0.95, 19)))
    for q in (0.001, 0.01, 0.1, 0.25, 0.5, 0.77, 0.99, 1.0):
        assert abs((values <= summary.quantile(q)).mean() - q) <= 0.05
    assert summary.quantile(0) == values.min() and summary.quantile(1) == values.max()


def test_centre_and_scale_are_those_of_numpy_and_scipy():
    values = gaussian(200_000)
    summary = Summary.of(values, EDGES)
    assert DETECTORS["zscore"].centre_and_scale(summary) == pytest.approx((values.mean(), values.std()), rel=1e-9)
    centre, scale = DETECTORS["robust_zscore"].centre_and_scale(summary)
    assert centre == pytest.approx(np.median(values), abs=0.01)
    assert scale == pytest.approx(stats.median_abs_deviation(values, scale="normal"), rel=0.01)
    centre, scale = DETECTORS["iqr"].centre_and_scale(summary)
    low, high = np.quantile(values, [0.25, 0.75])
    assert (centre, scale) == pytest.approx(((low + high) / 2, high - low), abs=0.01)


def test_where_half_of_the_values_are_the_same_the_robust_scale_is_the_standard_deviation():
    values = np.concatenate([np.full(700, 5.0), np.linspace(0, 10, 300)])
    summary = Summary.of(values, [4.999, 5.0, 5.001])
    for name in ("robust_zscore", "iqr"):
        assert DETECTORS[name].centre_and_scale(summary)[1] == pytest.approx(values.std(), rel=1e-6)


def test_a_summary_without_values_and_one_with_a_single_value():
    empty = Summary.empty(EDGES)
    assert empty.records == 0 and np.isnan([empty.mean, empty.std, empty.quantile(0.5), empty.mad()]).all()
    assert Summary.from_json(json.loads(json.dumps(empty.to_json())), EDGES).records == 0
    one = Summary.of(np.array([1.5, np.nan, np.inf]), EDGES)
    assert (one.records, one.mean, one.quantile(0.3), one.mad()) == (1, 1.5, 1.5, 0)


def test_a_rhythm_knows_an_hour_that_it_has_seen_on_two_days():
    rhythm = Rhythm()
    minutes = np.arange(3 * DAY)
    usual = 10 + 5 * np.sin(2 * np.pi * minutes / DAY)
    for hour in range(3 * 24):
        block = slice(60 * hour, 60 * hour + 60)
        expected = rhythm.expected(minutes[block])
        assert np.isnan(expected.usual).all() == (hour < 48)
        rhythm.learn(minutes[block], usual[block], expected.usual)
    ahead = rhythm.expected(np.arange(3 * DAY, 4 * DAY)).usual
    assert np.abs(ahead / usual[:DAY] - 1).max() < 0.03


def test_residuals_of_a_poisson_stream_have_a_spread_of_one_at_any_rate():
    for rate in (4, 50, 3000):
        counts = np.random.default_rng(3).poisson(rate, 20_000)
        assert residuals(counts, np.full(20_000, rate)).std() == pytest.approx(1, abs=0.06)


def arrivals(generated, chosen=slice(None)):
    minutes, counts = np.unique(generated.arrival_ms[chosen] // 60_000, return_counts=True)
    return dict(zip(minutes.tolist(), counts.tolist(), strict=True))


def judged(count, seed, faults, chunk=None):
    """Findings of a watch that is handed two weeks at once, or in chunks of minutes."""
    start = datetime(2026, 3, 1 + seed, tzinfo=UTC)
    generated = synthetic.generate(count, seed=seed, start=start, duration=timedelta(days=14), faults=faults)
    held = arrivals(generated)
    watch, found = Watch(), []
    end = max(held)
    border = min(held)
    while border < end:
        upto = end if chunk is None else min(border + chunk, end)
        found += watch.judge("*", {m: c for m, c in held.items() if border <= m < upto}, upto)
        watch = Watch.from_json(json.loads(json.dumps(watch.to_json())))
        border = upto
    truth = {line["kind"]: line for line in generated.truth if line["kind"] in faults}
    return found, truth


@pytest.mark.parametrize("count", [60_000, 1_000_000])
def test_clean_weeks_raise_no_alarm(count):
    assert [found for seed in range(4) for found in judged(count, seed, [])[0]] == []


@pytest.mark.parametrize("count", [60_000, 1_000_000])
@pytest.mark.parametrize("seed", range(4))
def test_each_spike_and_gap_is_found_and_nothing_else(count, seed):
    found, truth = judged(count, seed, ["spike", "gap"])
    as_minute = lambda text: int(datetime.fromisoformat(text).timestamp() // 60)  # noqa: E731
    for kind, anomaly_type in (("spike", "spike"), ("gap", "missing_pattern")):
        begin, end = (as_minute(truth[kind][name]) for name in ("window_start", "window_end"))
        of_kind = [one for one in found if one.anomaly_type == anomaly_type]
        assert of_kind and all(one.start < end + 3 and one.end > begin for one in of_kind)
    (silence,) = [one for one in found if one.detector == "gap"]
    assert abs(silence.start - begin) <= 3 and abs(silence.end - end) <= 3 and silence.observed <= 0.1 * silence.expected


def test_what_is_found_does_not_depend_on_when_it_is_looked():
    whole, _ = judged(200_000, 1, ["spike", "gap"])
    hourly, _ = judged(200_000, 1, ["spike", "gap"], chunk=60)
    begins = lambda found: {(one.detector, one.start) for one in found}  # noqa: E731
    # An hourly look tells each time of what goes on: begun at the same minute, and longer.
    assert begins(whole) == begins(hourly)


def test_a_silence_is_found_before_anything_arrives_again():
    rhythm_of = dict.fromkeys(range(5 * DAY), 20)
    watch = Watch()
    assert watch.judge("*", rhythm_of, 5 * DAY) == []
    assert watch.judge("*", {}, 5 * DAY + gap.MIN_MINUTES - 1) == []
    allowed = watch.silence_allowed(5 * DAY)
    assert allowed == 60 * gap.MIN_MINUTES
    (silence,) = watch.judge("*", {}, 5 * DAY + gap.MIN_MINUTES)
    assert (silence.detector, silence.start, silence.end) == ("gap", 5 * DAY, 5 * DAY + gap.MIN_MINUTES)
    (longer,) = watch.judge("*", {}, 5 * DAY + 60)
    assert (longer.start, longer.end) == (5 * DAY, 5 * DAY + 60)
    assert watch.judge("*", dict.fromkeys(range(5 * DAY + 60, 5 * DAY + 90), 20), 5 * DAY + 90)[0].end == 5 * DAY + 60
    assert watch.judge("*", dict.fromkeys(range(5 * DAY + 90, 5 * DAY + 120), 20), 5 * DAY + 120) == []


def test_a_stream_that_sleeps_at_night_is_not_silent_then():
    watch, found = Watch(), []
    for day in range(8):
        awake = {day * DAY + minute: 30 for minute in range(8 * 60, 20 * 60)}
        found += watch.judge("*", awake, (day + 1) * DAY)
    assert found == []
    (missed,) = watch.judge("*", {}, 9 * DAY)
    assert missed.anomaly_type == "missing_pattern" and missed.expected > 10_000
