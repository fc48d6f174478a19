"""Which windows a look judges, by what: the parts of it that need no Spark."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest

from streaming_pipeline.detectors import bins
from streaming_pipeline.detectors.summary import Summary
from streaming_pipeline.monitoring import baseline, detection, profile, schema
from streaming_pipeline.monitoring.state import State


def test_windows_of_a_source_that_hands_over_yesterdays_events_are_judged_once_a_later_one_has_come():
    rng = np.random.default_rng(0)
    edges = bins.lay_bins(np.quantile(rng.standard_normal(5_000), bins.SHARES))[0]
    shape = profile.Shape(60, (), {"value": edges})

    def windows(*numbers):
        held = {}
        for number in numbers:
            one = profile.ColumnProfile(number, "*", "value", 500, 0, raw=Summary.of(rng.standard_normal(500), edges))
            held[one.key] = one
        return held

    in_force = baseline.Baseline(1, "silver_events", "x", tuple(range(24)), shape).with_reference(windows(*range(24)))
    state = State(next_window=24)
    judged = []
    # By Kafka's clock the day is over each time.
    for numbers in ((24, 25, 26), (26, 27), (27,), (28,)):
        found = detection._judge_drift(state, in_force, windows(*numbers), closed_before=60)
        judged.append({one.window for one in found})
        records = {one.window: one.records for one in found if one.metric == "psi"}
        assert records.get(26, 1_000) == 1_000
    assert judged == [{24, 25}, {26}, set(), {27}]


def test_the_baseline_is_the_first_clean_windows():
    counts = dict.fromkeys(range(10), 500) | {2: 20, 3: 5_000, 5: 99}
    assert baseline.choose_windows(counts, 10, [range(6, 7)], 4) == (0, 1, 4, 7)
    assert baseline.choose_windows(counts, 10, [range(6, 7)], 6) == (0, 1, 4, 7, 8, 9)
    assert baseline.choose_windows(counts, 10, [range(6, 7)], 7) is None
    assert baseline.choose_windows(counts, 8, [], 7) is None


def test_skewed_values_are_seen_on_a_logarithmic_scale_and_others_as_they_are():
    rng = np.random.default_rng(0)
    shares = bins.SHARES
    lognormal, gaussian = (np.quantile(values, shares) for values in (rng.lognormal(7, 0.5, 50_000), rng.normal(100, 5, 50_000)))
    assert bins.lay_bins(lognormal)[1] == pytest.approx(np.exp(7) / 10, rel=0.02)
    assert bins.lay_bins(gaussian)[1] is None
    edges, scale = bins.lay_bins(np.full(len(shares), 7.0))
    assert scale is None and 7.0 in edges and list(edges) == sorted(set(edges))


def test_a_field_that_comes_goes_or_changes_its_type_is_told_once_or_while_it_lasts():
    known = schema.Known()
    usual = {(hour, reason): 2 for hour in range(5) for reason in ("wrong_type:value", "missing:event_type", "*")}
    assert schema.changes(known, [], usual, dict.fromkeys(range(5), 1_000), 60) == []
    at = datetime(1970, 1, 1, 6, 20, tzinfo=UTC)
    slip, field = schema.UnknownField("chanel", 1, at), schema.UnknownField("channel", 700, at)
    broken = {(6, "wrong_type:value"): 400, (6, "*"): 402, (6, "missing:event_type"): 2, (7, "wrong_type:value"): 15, (7, "*"): 15}
    (added, retyped) = schema.changes(known, [slip, field], broken, {6: 600, 7: 50}, 60, {"value": "number by the contract, now object"})
    assert (added.column, added.metric, added.window, added.records) == ("channel", "schema_added", 6, 700)
    assert (retyped.column, retyped.metric, retyped.window, retyped.severity) == ("value", "schema_retyped", 6, "critical")
    assert retyped.value == pytest.approx(100 * 400 / 1002)
    assert (retyped.detail, added.detail) == ("number by the contract, now object", None)
    gone = {(8, "missing:event_type"): 1_000, (8, "*"): 1_000}
    (removed,) = schema.changes(schema.Known(**json.loads(json.dumps(known.to_json()))), [field], gone, {}, 60)
    assert (removed.column, removed.metric, removed.value) == ("event_type", "schema_removed", 100)
    # The slip becomes a field when it comes again and again.
    slip = schema.UnknownField("chanel", 2, at)
    assert [one.column for one in schema.changes(known, [slip], {}, {9: 100}, 60)] == ["chanel"]
