"""The model: what it sees of an event, where its threshold lies, what it says of a flag, and when the gate lets it pass."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bronze_rows import shipped_contract
from model import START, events
from sklearn.metrics import average_precision_score

from streaming_pipeline.core.contract import parse_contract
from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.gold import calibration, gate, inputs
from streaming_pipeline.gold.features import FEWEST, HOURS, EventFeatures, Usual

SENSORS = Path(__file__).parents[2] / "examples" / "sensors" / "event_contract.yml"


@pytest.fixture(scope="module")
def clean():
    return events()[0]


@pytest.fixture(scope="module")
def fitted(clean):
    return calibration.fit(clean, "event_type", 0.01)


# ---- features ----


def test_spreads_are_told_by_the_deciles_of_the_slice_and_hour(clean):
    features = EventFeatures("event_type").fit(clean)
    inputs = features.transform(clean)
    assert inputs.shape == (len(clean), 6)
    hours = (clean["timestamp_unix"] % 86_400 // 3_600).astype(int)
    usual = features.usual_["value"]
    for kind, hour in (("view", 20), ("click", 3), ("purchase", 18)):
        of_cell = ((clean["event_type"] == kind) & (hours == hour)).to_numpy()
        seen = np.arcsinh(clean["value"].to_numpy()[of_cell] / usual.scale)
        low, middle, high = np.quantile(seen, [0.1, 0.5, 0.9])
        expected = np.where(seen < middle, (seen - middle) / (middle - low), (seen - middle) / (high - middle)) * 1.2816
        np.testing.assert_allclose(inputs[of_cell, 0], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.hypot(inputs[:, 2], inputs[:, 3]), 1, rtol=1e-6)
    np.testing.assert_allclose(inputs[:, 2], np.sin(2 * np.pi * clean["timestamp_unix"] / 86_400), atol=1e-4)
    np.testing.assert_allclose(inputs[:, 5], np.cos(2 * np.pi * clean["timestamp_unix"] / 604_800), atol=1e-4)


@pytest.mark.parametrize("scale", [None, 150.0])
def test_a_value_so_many_spreads_away_is_so_many_spreads_away(scale):
    usual = Usual(scale, np.array([3.0, 0.2, 0.4]), np.array([[3.0, 0.2, 0.4], [2.0, 0.5, 0.1]]))
    cells, spreads = np.array([0, 1, 0, 1]), np.array([-4.0, 4.0, 0.0, -0.5])
    np.testing.assert_allclose(usual.spreads(usual.value(spreads, cells), cells)[0], spreads, atol=1e-9)


def test_what_is_rare_or_new_goes_by_what_is_usual_for_all():
    rng = np.random.default_rng(0)
    kinds = np.array(["a"] * 1_000 + ["b"] * (FEWEST - 1), dtype=object)
    frame = pd.DataFrame({"kind": kinds, "value": rng.normal(10, 1, len(kinds)), "timestamp_unix": 1e9 + 60.0 * np.arange(len(kinds))})
    features = EventFeatures("kind").fit(frame)
    assert list(features.slices_) == ["a"]
    asked = pd.DataFrame({"kind": ["b", "never seen", None], "value": 12.0, "timestamp_unix": 1e9})
    assert len(np.unique(features.transform(asked), axis=0)) == 1
    # An hour with few rows goes by its slice.
    usual = features.usual_["value"]
    silent = (frame["timestamp_unix"].iloc[999] // 3_600 + 2) % 24
    assert (usual.by_cell[HOURS + int(silent)] == usual.by_cell[HOURS + int((silent + 1) % 24)]).all()


def test_a_missing_number_counts_as_usual(fitted):
    row = pd.DataFrame({"event_type": ["view"] * 2, "value": [np.nan, 1500.0], "timestamp_unix": [START.timestamp()] * 2})
    inputs = fitted.features.transform(row)
    assert inputs[0, 0] == inputs[0, 1] == 0
    assert np.isfinite(fitted.pipeline.decision_function(row)).all()


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(400),
        np.full(400, 7.5),
        np.repeat([0.0, 1.0], [390, 10]),
        np.repeat([np.nan, 3.0], [399, 1]),
        np.full(400, np.nan),
        np.random.default_rng(1).standard_cauchy(400) * 1e300,
        np.random.default_rng(2).lognormal(0, 5, 400),
        -np.random.default_rng(3).lognormal(9, 1, 400),
    ],
    ids=["zeros", "constant", "mostly zero", "one value", "no value", "enormous", "lognormal", "negative"],
)
def test_any_values_give_finite_scores_and_sentences(values):
    rows = pd.DataFrame({"value": values, "timestamp_unix": 1e9 + 3_600.0 * np.arange(len(values))})
    made = calibration.fit(rows.sample(frac=1, random_state=0, ignore_index=True), None, 0.01)
    asked = pd.concat([rows, pd.DataFrame({"value": [0.0, 1e308, -1e308, np.inf, np.nan], "timestamp_unix": 2e9})], ignore_index=True)
    assert np.isfinite(made.pipeline.decision_function(asked)).all()
    assert all(made.pipeline.explain(asked))


# ---- the threshold ----


@pytest.mark.parametrize("faults", [(), None], ids=["clean", "with faults"])
@pytest.mark.parametrize("contamination", [0.01, 0.002])
def test_180_days_later_clean_events_are_flagged_at_the_rate_that_was_asked_for(faults, contamination):
    trained_on, _ = events(100_000, seed=3, faults=faults)
    made = calibration.fit(trained_on, "event_type", contamination)
    assert made.flag_rate == pytest.approx(contamination, abs=1 / len(made.held_out) + 1e-9)
    later, _ = events(100_000, seed=4, start=START + timedelta(days=180))
    assert 0.5 * contamination <= np.mean(made.pipeline.decision_function(later) < 0) <= 1.5 * contamination


@pytest.mark.parametrize("trained_with", [(), None], ids=["on clean events", "on events with outliers"])
def test_outliers_are_found_whether_or_not_the_training_had_some(trained_with):
    asked, is_outlier = events(60_000, seed=5, faults=None)
    trained_on = events(60_000, seed=6)[0] if trained_with is not None else asked
    made = calibration.fit(trained_on, "event_type", 0.002)
    score = made.pipeline.decision_function(asked)
    assert average_precision_score(is_outlier, -score) > 0.98
    assert np.mean(score[is_outlier] < 0) > 0.98
    # Each hundredth held-out event is not flagged at 0.002, however many outliers there are.
    assert np.mean(score[~is_outlier] < 0) < 0.005
    if trained_with is None:
        assert made.excluded == pytest.approx(is_outlier.sum(), rel=0.05)


def test_held_out_events_move_the_threshold_alone(clean):
    half = len(clean) // 2
    other = clean.copy()
    other.loc[half:, "value"] *= 1.2
    one, two = (calibration.fit(frame, "event_type", 0.01).pipeline for frame in (clean, other))
    forest_one, forest_two = one.named_steps["forest"], two.named_steps["forest"]
    assert forest_one.offset_ > forest_two.offset_
    inputs = one.named_steps["features"].transform(clean)
    assert (inputs == two.named_steps["features"].transform(clean)).all()
    assert (forest_one.score_samples(inputs) == forest_two.score_samples(inputs)).all()


def test_the_same_events_give_the_same_model(clean, fitted):
    again = calibration.fit(clean, "event_type", 0.01)
    assert (again.pipeline.decision_function(clean) == fitted.pipeline.decision_function(clean)).all()


def test_a_threshold_that_rests_on_too_few_events_says_so(clean, fitted):
    assert fitted.note == ""
    assert "train on 20,000 events" in calibration.fit(clean.head(2_000), "event_type", 0.001).note
    assert "one usual event in 5 is flagged" in calibration.fit(clean.head(2_000), "event_type", 0.2).note


@pytest.mark.parametrize("columns", [["value"], ["timestamp_unix"], ["event_type", "value"], ["value", "timestamp_unix"]])
def test_any_choice_of_features_makes_a_model(clean, columns):
    made = calibration.fit(clean[columns], "event_type" if "event_type" in columns else None, 0.01)
    assert np.mean(made.pipeline.decision_function(clean[columns]) < 0) == pytest.approx(0.01, rel=0.5)


def test_the_features_are_the_contracts_numbers_unless_some_are_named():
    assert inputs.features(shipped_contract(), ()) == ("value", "timestamp_unix")
    text = SENSORS.read_text().replace('        logicalTypeOptions:\n          pattern: "[a-z]+-[0-9]+"\n', "")
    other = parse_contract(text.replace("logicalType: string", "logicalType: integer"))
    # Neither the id nor the slice, though they are numbers here.
    assert inputs.features(other, ()) == ("temperature_celsius", "humidity_percent", "timestamp_unix")
    assert inputs.features(other, ("site",)) == ("site",)
    with pytest.raises(UsageError, match="names 'value', which is no number of the event contract; use humidity_percent, "):
        inputs.features(other, ("value",))


def test_an_outlier_of_one_number_among_many_is_found():
    rng = np.random.default_rng(0)
    names = [f"n{place}" for place in range(10)]
    rows = pd.DataFrame(rng.normal(100, 10, (40_000, 10)), columns=names).assign(timestamp_unix=1.7e9 + 60.0 * np.arange(40_000))
    pipeline = calibration.fit(rows.sample(frac=1, random_state=0, ignore_index=True), None, 0.002).pipeline
    asked = rows.head(500).copy()
    for row in range(len(asked)):
        asked.loc[row, names[row % 10]] = 100 + 300 * (-1) ** row
    assert np.mean(pipeline.decision_function(asked) < 0) > 0.95
    told = pipeline.explain(asked)
    assert np.mean([text.startswith(f"{names[row % 10]}: ") for row, text in enumerate(told)]) > 0.9


def test_days_that_a_training_has_not_seen_are_not_strange():
    frame, _ = events(60_000, seed=2)
    is_first = frame["timestamp_unix"] < START.timestamp() + 2 * 86_400
    made = calibration.fit(frame[is_first].reset_index(drop=True), "event_type", 0.01)
    assert made.features.periods_ == (86_400,) and "less than a week" in made.note
    assert np.mean(made.pipeline.decision_function(frame[~is_first]) < 0) < 0.02


def test_each_side_has_its_own_fence_and_what_lies_beyond_is_told():
    rng = np.random.default_rng(0)
    two_modes = np.where(rng.random(40_000) < 0.03, rng.normal(1_000, 1, 40_000), rng.normal(10, 1, 40_000))
    made = calibration.fit(pd.DataFrame({"value": two_modes}), None, 0.01)
    assert (made.pipeline.decision_function(pd.DataFrame({"value": [-500.0, 4_000.0]})) < 0).all()
    rare = np.where(rng.random(40_000) < 0.005, 1_000.0, rng.normal(10, 1, 40_000))
    told = f"{np.mean(rare == 1_000):.2%} of the events lie outside the usual limits"
    assert told in calibration.fit(pd.DataFrame({"value": rare}), None, 0.001).note


def test_where_many_events_have_the_same_score_the_nearest_share_is_flagged():
    values = np.repeat([0.0, 1.0, 2.0], [9_000, 880, 120])
    frame = pd.DataFrame({"value": np.random.default_rng(0).permutation(values)})
    for contamination, expected in ((0.01, 0.012), (0.001, 0.0)):
        assert np.mean(calibration.fit(frame, None, contamination).pipeline.decision_function(frame) < 0) == pytest.approx(
            expected, abs=2e-3
        )


def test_times_alone_of_less_than_a_day_are_refused(clean):
    first_hours = clean.loc[clean["timestamp_unix"] < START.timestamp() + 7_200, ["timestamp_unix"]]
    with pytest.raises(PipelineError, match="less than a day: name a number of the contract in 'features'"):
        calibration.fit(first_hours, None, 0.01)


# ---- what drove a flag ----


def test_a_flag_is_explained_by_the_input_that_makes_it_strange(fitted):
    at = (START + timedelta(days=7, hours=20)).timestamp()
    rows = pd.DataFrame({"event_type": "view", "value": [30_000.0, -9_000.0], "timestamp_unix": at})
    assert (fitted.pipeline.decision_function(rows) < 0).all()
    high, low = fitted.pipeline.explain(rows)
    assert high.startswith("value: 30000 is ") and "standard deviations above the usual 15" in high and high.endswith(" of view at 20h UTC")
    assert low.startswith("value: -9000 is ") and "standard deviations below the usual 15" in low


def test_an_event_at_an_unusual_time_is_explained_by_its_time():
    rng = np.random.default_rng(0)
    days = rng.integers(0, 28, 20_000)
    seconds = START.timestamp() + 86_400.0 * days + rng.normal(12 * 3_600, 1_800, len(days))
    made = calibration.fit(pd.DataFrame({"value": rng.normal(5, 1, len(days)), "timestamp_unix": seconds}), None, 0.01)
    night = pd.DataFrame({"value": [5.0], "timestamp_unix": [(START + timedelta(days=6, hours=3)).timestamp()]})
    assert made.pipeline.decision_function(night)[0] < 0
    assert made.pipeline.explain(night) == ["timestamp_unix: few events come on Sunday at 03h UTC"]


# ---- the gate ----


def failed(challenger, champion, recent, contamination=0.01):
    """Names of the checks that a challenger does not pass."""
    return {check.name for check in gate.examine(challenger, champion, recent, contamination)[0] if not check.is_passed}


def test_a_challenger_of_the_same_kind_passes(fitted):
    challenger = calibration.fit(events(seed=8)[0], "event_type", 0.01)
    recent = events(20_000, seed=9, start=START + timedelta(days=14))[0]
    assert failed(challenger, None, recent) == failed(challenger, fitted.pipeline, recent) == set()


def test_of_few_events_chance_alone_refuses_no_challenger():
    """The strangest of 1,250 are thirteen. Some of them came by night, which is usual once 500 others have come by night too."""
    agreements = []
    for seed in range(5):
        usual = events(4_000, seed=seed)[0]
        by_night = usual.head(500).assign(timestamp_unix=(START + timedelta(days=13, hours=5)).timestamp() + np.arange(500) / 2)
        challenger = calibration.fit(pd.concat([usual, by_night]).sample(frac=1, random_state=seed), "event_type", 0.02)
        recent = gate.recent_of(challenger.held_out, challenger.held_out["timestamp_unix"])
        checks, _ = gate.examine(challenger, calibration.fit(usual, "event_type", 0.001).pipeline, recent, 0.02)
        assert all(check.is_passed for check in checks), checks
        agreements.append(checks[-1].value)
    assert min(agreements) < 0.5  # what is asked for of many events


def test_a_challenger_that_does_not_know_the_events_of_today_is_refused(clean, fitted):
    recent = events(20_000, seed=9)[0]
    # Trained where other values were usual: today's are all strange to it.
    abroad = clean.assign(value=clean["value"] * 3)
    assert "flag_rate" in failed(calibration.fit(abroad, "event_type", 0.01), fitted.pipeline, recent)
    # Trained where values were all over the place: it finds nothing strange.
    rng = np.random.default_rng(0)
    wild = clean.assign(value=rng.uniform(-50_000, 50_000, len(clean)))
    blind = calibration.fit(wild, "event_type", 0.01)
    assert {"recall_lost", "agreement"} <= failed(blind, fitted.pipeline, recent)


def test_a_recall_that_the_champion_does_not_reach_either_is_no_reason_to_refuse(fitted, monkeypatch):
    recent = events(20_000, seed=9)[0]
    monkeypatch.setattr(gate, "_LEAST_RECALL", 1.1)
    assert failed(fitted, None, recent) == {"recall"}
    assert failed(fitted, fitted.pipeline, recent) == set()


def test_a_threshold_that_was_moved_is_seen_by_the_flag_rate(fitted):
    recent = events(20_000, seed=9)[0]
    forest = fitted.pipeline.named_steps["forest"]
    held = forest.offset_
    try:
        forest.offset_ = held + 0.1
        assert failed(fitted, None, recent) == {"flag_rate"}
    finally:
        forest.offset_ = held


def test_recent_events_are_those_of_the_last_week_if_they_are_enough():
    frame = pd.DataFrame({"value": np.arange(2_000.0)})
    time = pd.Series(np.linspace(0, 13 * 86_400, 2_000))
    assert len(gate.recent_of(frame, time)) == pytest.approx(2_000 * 7 / 13, abs=1)
    assert len(gate.recent_of(frame.head(1_000), time.head(1_000) * 2)) == 1_000
