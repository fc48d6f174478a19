"""What a look at the tables finds when they are in order, and when they are not."""

import json
from functools import reduce
from operator import getitem

import numpy as np
import pytest
from bronze_rows import T0
from monitoring_cases import places

from streaming_pipeline.detectors.gap import Gap
from streaming_pipeline.detectors.summary import Summary
from streaming_pipeline.monitoring import state as states
from streaming_pipeline.monitoring.arrivals import Anomaly, Watch
from streaming_pipeline.monitoring.baseline import Baseline
from streaming_pipeline.monitoring.freshness import health, problems
from streaming_pipeline.monitoring.intake import Intake
from streaming_pipeline.monitoring.profile import ColumnProfile, Shape
from streaming_pipeline.monitoring.schema import Known
from streaming_pipeline.monitoring.scores import Scores
from streaming_pipeline.monitoring.values import ColumnMemory


@pytest.mark.parametrize("detector", ["clock", "arrivals", "drift", "schema", "scores", "values"])
@pytest.mark.parametrize("text", [None, "", "{", "5", "[]", "null", '"x"', "[" * 100_000])
def test_no_row_of_monitor_state_stops_a_look(detector, text):
    held = Baseline(1, "silver_events", "x", (1, 2), Shape(60, (), {"value": (0.0, 1.0)}, {"value": 1.0}))
    rows = states.rows(states.State(watches={"*": Watch()}, next_window=5, last_minute=7, baseline_id=1), 1, T0)
    rows += [{"detector": "values", "slice": "value/*", "state": json.dumps(ColumnMemory(held.shape.scaled_edges("value")).to_json())}]
    good = states.load(rows, held)
    assert (good.last_minute, good.next_window, list(good.memories), good.damaged) == (7, 5, [("value", "*")], ())
    found = states.load([row | {"state": text} if row["detector"] == detector else row for row in rows], held)
    assert [name.split()[0] for name in found.damaged] == [detector]
    # What hangs on the baseline begins anew together.
    hangs = detector in ("clock", "drift", "values")
    assert (found.next_window, found.baseline_id) == ((None, None) if hangs else (5, 1))


def test_a_number_of_monitor_state_that_is_none_is_found_before_a_look_counts_with_it():
    shape = Shape(60, (), {"value": (0.0, 1.0)}, {"value": 1.0})
    some = Summary.of(np.array([0.5, 2.0]), shape.scaled_edges("value"))
    one, memory = ColumnProfile(5, "*", "value", 2, 0, raw=some, scaled=some, categories={"a": 1}), ColumnMemory(some.edges)
    memory.learn(some, [], 3, 60)
    spike = Anomaly("zscore", "spike", "arrivals", "*", 1, 2, 9.0, 1.0, 8.0, 6.0)
    watch = Watch(next_minute=2, quiet=Gap(1, 2, 1.0, 0.0, 1.0), spiking=[spike], waiting={3: 1})
    state = states.State({"*": watch}, {("value", "*"): memory}, {one.key: one}, 5, 7, Known({"x": 1}, {"r": 1}, 2), baseline_id=1)
    state.scores = Scores(T0, 3, {("m/1", 3): some})
    held = Baseline(1, "silver_events", "x", (1, 2), shape)
    rows = states.rows(state, 1, T0)
    assert states.load(rows, held).damaged == ()
    tried = 0
    for row in rows:
        for *way, last in places(json.loads(row["state"])):
            kept = json.loads(row["state"])
            reduce(getitem, way, kept)[last] = "x"
            found = states.load([other if other is not row else row | {"state": json.dumps(kept)} for other in rows], held)
            assert found.damaged == (f"{row['detector']} {row['slice']}".strip(),), (way, last)
            tried += 1
    assert tried > 100


def test_health_says_all_that_is_wrong():
    fine = {"unaccounted": 0, "lost": 0, "freshness_seconds": 10.0, "freshness_limit_seconds": 60}
    assert problems(**fine) == {}
    bad = problems(**{**fine, "unaccounted": 2, "lost": 1, "freshness_seconds": 61.0})
    assert list(bad) == ["records_unaccounted", "records_lost", "stale"]
    assert list(problems(**fine, silent_seconds=9.0, silence_allowed_seconds=8.0)) == ["stale"]
    assert problems(**{**fine, "freshness_seconds": None}) == {}
    old = problems(**{**fine, "unaccounted": 1, "freshness_seconds": 23_480_194.0, "freshness_limit_seconds": 7_200})
    assert list(old.values()) == ["1 record is not accounted for", "the newest event is 272 days old, the limit is 2 hours"]
    assert health({}, has_events=True) == ("Healthy", None)
    assert health({"stale": "it is old", "records_rejected": "half is bad"}, has_events=True) == ("Unhealthy", "it is old; half is bad")
    assert health({}, has_events=False) == ("Unknown", "no event has arrived yet")
    assert health({}, has_events=False, rejection="all are bad") == ("Unknown", "all are bad")


@pytest.mark.parametrize(
    ("intake", "found"),
    [
        (
            Intake(200, 200, 0, {"missing:value": 200}),
            {"records_rejected": "200 of 400 records rejected (missing:value 200), the limit is 5 %"},
        ),
        (Intake(95, 5, 0, {"missing:value": 5}), {}),
        (Intake(18, 1, 1), {}),
        (Intake(18, 2, 0), {"records_rejected": "2 of 20 records rejected, the limit is 5 %"}),
        (Intake(0, 19, 0), {}),
        (Intake(80, 0, 20), {}),
        (Intake(79, 0, 21), {"records_repeated": "21 of 100 records repeat an event, the limit is 20 %"}),
        (
            Intake(0, 400, 0, {"missing:event_id": 400}),
            {"records_rejected": "400 of 400 records rejected (missing:event_id 400): is this the right contract?"},
        ),
        (
            Intake(0, 30, 0, {"a": 1, "b": 2, "c": 3, "d": 30}),
            {"records_rejected": "30 of 30 records rejected (d 30, c 3, b 2, …): is this the right contract?"},
        ),
    ],
)
def test_a_share_of_rejected_or_repeated_records_above_its_limit_is_a_problem_without_any_history(intake, found):
    assert intake.problems(5, 20) == found


def test_the_limits_of_shares_are_parameters():
    assert set(Intake(50, 25, 25).problems(24, 24)) == {"records_rejected", "records_repeated"}
    assert Intake(50, 25, 25).problems(25, 25) == {}
    assert set(Intake(99, 1, 0).problems(0, 0)) == {"records_rejected"}
