"""Statistics of drift against scipy and numpy, and how often the alarm is right."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from streaming_pipeline.detectors.bins import lay_bins
from streaming_pipeline.detectors.summary import Summary
from streaming_pipeline.monitoring import drift, statistics
from streaming_pipeline.monitoring.profile import ALL, ColumnProfile

SHARES = (0.001, 0.005, 0.01, 0.025, *np.arange(0.05, 0.96, 0.05), 0.975, 0.99, 0.995, 0.999)


def edges_of(values):
    return np.array(lay_bins(np.quantile(values, SHARES))[0])


def profile(values, edges, window=0, column="value"):
    return ColumnProfile(window, ALL, column, len(values), 0, raw=Summary.of(values, edges))


def test_psi_is_its_formula_and_that_of_known_shifts():
    rng = np.random.default_rng(0)
    now, then = rng.integers(0, 50, (5, 10)), rng.integers(0, 80, (5, 10))
    p = (now + 0.5) / (now.sum(1, keepdims=True) + 5)
    q = (then + 0.5) / (then.sum(1, keepdims=True) + 5)
    assert statistics.psi(now, then) == pytest.approx(
        [stats.entropy(a, b) + stats.entropy(b, a) for a, b in zip(p, q, strict=True)], rel=1e-9
    )
    deciles = stats.norm.ppf(np.arange(0.1, 0.91, 0.1))
    for shift, scale, known in ((0.5, 1, 0.2377), (1.0, 1, 0.9261), (0.0, 2, 0.4908)):
        shares = np.diff(stats.norm.cdf(np.concatenate([[-np.inf], deciles, [np.inf]]), shift, scale))
        assert statistics.psi(shares * 1e9, np.full(10, 1e8)) == pytest.approx(known, abs=1e-4)


def test_ks_in_bins_is_within_a_hundredth_of_the_exact_one():
    rng = np.random.default_rng(1)
    for shift, scale in ((0, 1), (0.1, 1), (0.5, 1), (0, 1.5), (3, 1)):
        then, now = rng.standard_normal(20_000), rng.normal(shift, scale, 5_000)
        edges = edges_of(then)
        statistic, p = statistics.ks(Summary.of(now, edges).count, Summary.of(then, edges).count)
        exact = stats.ks_2samp(now, then, method="asymp")
        assert exact.statistic - 0.01 <= statistic <= exact.statistic + 1e-12
        assert p >= exact.pvalue * (1 - 1e-9)


def test_p_values_are_those_of_scipy():
    rng = np.random.default_rng(2)
    now, then = rng.integers(5, 50, (20, 6)), rng.integers(5, 80, (20, 6))
    expected = [stats.chi2_contingency([a, b], correction=False).pvalue for a, b in zip(now, then, strict=True)]
    assert statistics.chi_squared(now, then) == pytest.approx(expected, rel=1e-9)
    # A bin that both lack takes nothing away.
    wider = [np.insert(counts, 3, 0, axis=1) for counts in (now, then)]
    assert statistics.chi_squared(*wider) == pytest.approx(expected, rel=1e-9)
    a, b = rng.normal(0, 1, 4_000), rng.normal(0.05, 2, 90_000)
    shift, p = statistics.mean_shift(*(np.array([x]) for x in (a.mean(), a.var(), len(a), b.mean(), b.var(), len(b))))
    assert shift[0] == pytest.approx((a.mean() - b.mean()) / b.std(), rel=1e-9)
    assert p[0] == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue, rel=0.01)
    change, p = statistics.share_change(*(np.array([x]) for x in (30, 1000, 500, 30_000)))
    assert change[0] == pytest.approx(0.03 - 500 / 30_000)
    table = [[30, 970], [500, 29_500]]
    assert p[0] == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue, rel=1e-9)
    p_values = rng.random(50) ** 3
    assert statistics.adjusted(p_values) == pytest.approx(stats.false_discovery_control(p_values), rel=1e-12)
    with_gap = statistics.adjusted(np.insert(p_values, 7, np.nan))
    assert np.isnan(with_gap[7]) and np.delete(with_gap, 7) == pytest.approx(statistics.adjusted(p_values))


def test_constants():
    same, other = (np.array([x]) for x in (5.0, 6.0))
    zero, n = np.array([0.0]), np.array([100.0])
    assert [x[0] for x in statistics.mean_shift(same, zero, n, same, zero, n)] == [0, 1]
    assert statistics.mean_shift(same, zero, n, other, zero, n)[1][0] == 0
    assert [x[0] for x in statistics.share_change(zero, n, zero, n)] == [0, 1]


def alarms(found):
    return [one for one in found if one.is_drift]


def test_half_a_standard_deviation_is_found_among_a_thousand_rows():
    rng = np.random.default_rng(3)
    then = rng.standard_normal(10_000)
    edges = edges_of(then)
    pairs = [drift.Pair(profile(rng.normal(0.5, 1, 1_000), edges), profile(then, edges), "baseline") for _ in range(1_000)]
    # Each run on its own: no run's p-values help another's.
    found = sum(bool(alarms(drift.compare([pair]))) for pair in pairs)
    assert found >= 990


def test_without_drift_at_most_one_run_in_a_hundred_raises_an_alarm_over_twenty_columns():
    rng = np.random.default_rng(4)
    then = [rng.standard_normal(3_000) for _ in range(20)]
    edges = [edges_of(values) for values in then]
    false = 0
    for _ in range(300):
        run = [
            drift.Pair(
                profile(rng.standard_normal(1_000), edges[n], column=f"c{n}"), profile(then[n], edges[n], column=f"c{n}"), "baseline"
            )
            for n in range(20)
        ]
        false += bool(alarms(drift.compare(run)))
    assert false <= 3


def test_too_few_rows_are_unknown_and_not_healthy():
    rng = np.random.default_rng(5)
    then = rng.standard_normal(3_000)
    edges = edges_of(then)
    found = drift.compare([drift.Pair(profile(rng.normal(5, 1, 99), edges), profile(then, edges), "baseline")])
    assert found and all(one.is_drift is None and one.severity is None for one in found)


def test_a_change_of_unit_is_critical_and_an_outlier_is_no_drift():
    rng = np.random.default_rng(6)
    then, now = rng.lognormal(7, 0.3, 5_000), rng.lognormal(7, 0.3, 2_000)
    edges = edges_of(then)
    found = drift.compare([drift.Pair(profile(now * 100, edges), profile(then, edges), "baseline")])
    assert {one.metric: one.severity for one in alarms(found)} == dict.fromkeys(("psi", "ks", "mean_shift", "std_ratio"), "critical")
    now[:10] = 1e7
    assert alarms(drift.compare([drift.Pair(profile(now, edges), profile(then, edges), "baseline")])) == []


def test_categories_and_nulls():
    def typed(counts, nulls=0):
        return ColumnProfile(0, ALL, "kind", sum(counts.values()) + nulls, nulls, categories=counts)

    then = typed({"a": 6_000, "b": 3_000, "c": 1_000})
    cases = {
        "same": (typed({"a": 610, "b": 295, "c": 95}), set()),
        "mixed": (typed({"a": 300, "b": 600, "c": 100}), {("category_psi", "warning")}),
        "a new one": (typed({"a": 600, "b": 300, "c": 100, "d": 150}), {("category_psi", "critical")}),
        "empty": (typed({"a": 550, "b": 270, "c": 90}, nulls=90), {("null_pct_change", "warning")}),
    }
    for name, (now, expected) in cases.items():
        found = drift.compare([drift.Pair(now, then, "baseline")])
        assert {(one.metric, one.severity) for one in alarms(found)} == expected, name


def test_a_change_of_the_mix_alone_is_no_drift_of_the_numbers():
    rng = np.random.default_rng(8)
    levels = {"a": 0.0, "b": 3.0}
    edges = edges_of(np.concatenate([rng.normal(level, 1, 4_000) for level in levels.values()]))

    def window(number, sizes, shift=0.0):
        held = {name: rng.normal(levels[name] + shift, 1, size) for name, size in sizes.items()}
        parts = {(number, name, "value"): replace(profile(values, edges, number), slice=name) for name, values in held.items()}
        return parts | {(number, ALL, "value"): profile(np.concatenate(list(held.values())), edges, number)}

    then = window(0, {"a": 3_000, "b": 3_000})
    for sizes, shift, is_drift in (({"a": 900, "b": 300}, 0, False), ({"a": 900, "b": 300}, 0.7, True)):
        pairs = drift.pairs([24], window(24, sizes, shift), then, buckets=24)
        whole = [one for one in drift.compare(pairs) if one.slice == ALL and one.metric in ("psi", "ks", "mean_shift")]
        assert {one.is_drift for one in whole} == {is_drift}


def test_the_share_of_columns_that_drift():
    rng = np.random.default_rng(7)
    then = rng.standard_normal(3_000)
    edges = edges_of(then)
    shifts = {"a": 0, "b": 0, "c": 0, "d": 2}
    run = [
        drift.Pair(profile(rng.normal(shift, 1, 1_000), edges, column=name), profile(then, edges, column=name), "baseline")
        for name, shift in shifts.items()
    ]
    (share,) = [one for one in drift.compare(run) if one.metric == drift.DRIFTED_COLUMNS]
    assert (share.column, share.value) == (ALL, 25.0)
