"""The generator: the same arguments give the same bytes, the truth fits the bytes, and the rhythm is there to be learned."""

import hashlib
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.events.spoilt_payloads import SPOILT
from streaming_pipeline.events.synthetic import DAY, FAULTS, HOUR, MAX_DELAY_MS, MINUTE, TYPES, generate, stream, write_ground_truth

SAMPLE = Path(__file__).parents[2] / "data" / "synthetic_data_sample.json"
START = datetime(2025, 4, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
SEEDS = (0, 7, 123_456)


@pytest.fixture(scope="module", params=SEEDS)
def generated(request):
    return generate(30_000, start=START, seed=request.param)


@pytest.fixture(scope="module")
def records(generated):
    return list(generated)


def parsed(records) -> list[tuple[dict, int]]:
    """(event, record timestamp) of the records that hold a whole event."""
    events = []
    for record in records:
        try:
            event = json.loads(record.value)
        except (TypeError, ValueError):
            continue
        if isinstance(event, dict) and all(isinstance(event.get(name), str) for name in ("event_id", "event_type", "timestamp", "value")):
            events.append((event, record.timestamp_ms))
    return events


def event_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def lines_of(generated, kind) -> list[dict]:
    return [line for line in generated.truth if line["kind"] == kind]


def test_same_arguments_same_bytes(generated, records):
    again = generate(30_000, start=START, seed=generated.truth[0]["seed"])
    assert list(again) == records
    assert again.truth == generated.truth
    assert list(generated) == records, "iterating twice gives the same"


def test_other_arguments_other_bytes_and_other_ids():
    ids = [
        {record.key for record in generate(500, faults=[], **arguments)}
        for arguments in (
            {"start": START, "seed": 1},
            {"start": START, "seed": 2},
            {"start": START + timedelta(milliseconds=1), "seed": 1},
            {"start": START, "seed": 1, "duration": timedelta(days=1)},
        )
    ]
    assert len(set().union(*ids)) == 4 * 500


def test_without_faults_all_events_are_as_the_contract_says():
    generated = generate(2_000, start=START, faults=[])
    records = list(generated)
    assert generated.truth[1:] == []
    assert len(records) == len(generated) == 2_000
    for record in records:
        event = json.loads(record.value)
        assert list(event) == ["event_id", "event_type", "timestamp", "value"]
        assert record.key == event["event_id"].encode()
        assert event["timestamp"].endswith("Z") and len(event["timestamp"]) == len("2025-04-01T17:37:57.000Z")
        assert int(event["value"]) > 0
        assert 0 <= record.timestamp_ms - event_ms(event["timestamp"]) <= MAX_DELAY_MS
    assert len({record.key for record in records}) == 2_000
    assert {json.loads(record.value)["event_type"] for record in records} == {"click", "purchase", "view"}


def test_records_come_in_the_order_of_their_timestamps_within_the_window(generated, records):
    timestamps = [record.timestamp_ms for record in records]
    assert timestamps == sorted(timestamps)
    assert timestamps[0] >= START_MS
    assert timestamps[-1] <= START_MS + 14 * DAY


def test_summary_adds_up(generated, records):
    summary, *faults = generated.truth
    kinds = Counter(line["kind"] for line in faults)
    assert set(kinds) == set(FAULTS) == set(summary["faults"])
    assert summary["left_out"] == {}
    assert summary["records"] == len(records) == len(generated)
    assert summary["duplicates"] == kinds["redelivery"]
    assert summary["quarantined"] == {kind: kinds[kind] for kind in SPOILT}
    assert summary["records"] == summary["valid_events"] + summary["duplicates"] + sum(summary["quarantined"].values())
    ids = [line["event_id"] for line in faults if "event_id" in line] + [line["key"] for line in faults if "key" in line]
    assert len(set(ids)) == len(ids), "no event has two faults"


def test_redeliveries_are_the_same_payload_again(generated, records):
    times_sent = Counter(event["event_id"] for event, _ in parsed(records))
    by_payload = Counter(record.value for record in records)
    keys = {}
    for record in records:
        keys.setdefault(record.value, []).append(record.key)
    lines = lines_of(generated, "redelivery")
    assert {line["event_id"] for line in lines} == {event_id for event_id, n in times_sent.items() if n > 1}
    payloads = {
        json.loads(payload)["event_id"]: payload for payload, n in by_payload.items() if n == 2 and payload and payload[:2] == b'{"'
    }
    for line in lines:
        first, second = keys[payloads[line["event_id"]]]
        assert first == line["event_id"].encode()
        assert (first == second) == line["same_key"]
        assert 0 < line["seconds_later"] <= 6 * 3600 + 3 * 3600
    assert {line["same_key"] for line in lines} == {True, False}


def test_every_variant_of_spoilt_payloads_is_among_the_bytes(generated, records):
    sent = Counter(None if record.value is None else hashlib.sha256(record.value).hexdigest() for record in records)
    for kind, variants in SPOILT.items():
        lines = lines_of(generated, kind)
        assert {line["variant"]: line["reason"] for line in lines} == {name: reason for name, (reason, _) in variants.items()}
        for payload, n in Counter(line["payload_sha256"] for line in lines).items():
            assert sent[payload] == n


def test_malformed_payloads_are_what_they_are_called(generated, records):
    def is_object(payload):
        try:
            return isinstance(json.loads(payload), dict)
        except (TypeError, ValueError):
            return False

    malformed = {line["payload_sha256"]: line["variant"] for line in lines_of(generated, "malformed")}
    payloads = {}
    for record in records:
        digest = None if record.value is None else hashlib.sha256(record.value).hexdigest()
        if digest in malformed:
            payloads[malformed[digest]] = record.value
    assert set(payloads) == set(SPOILT["malformed"])
    assert not any(is_object(payload) for payload in payloads.values())
    assert payloads["tombstone"] is None and payloads["empty"] == b""
    assert isinstance(json.loads(payloads["array"]), list)
    with pytest.raises(UnicodeDecodeError):
        payloads["invalid_utf8"].decode()


def test_late_events_arrive_late_and_no_others_do(generated, records):
    lines = {line["event_id"]: line["late_seconds"] for line in lines_of(generated, "late")}
    again = {line["event_id"] for line in lines_of(generated, "redelivery")}
    spoilt = {line["key"] for kind in SPOILT for line in lines_of(generated, kind)}
    late = {}
    for event, at in parsed(records):
        if event["event_id"] not in again | spoilt and (delay := (at - event_ms(event["timestamp"])) / 1000) > MAX_DELAY_MS / 1000:
            late[event["event_id"]] = delay
    assert late == pytest.approx(lines)
    assert min(late.values()) >= 600
    assert max(late.values()) > 86_400


def test_outliers_are_far_from_all_other_values(generated, records):
    usual = {kind.name: kind.usual_value for kind in TYPES}
    spoilt = {line["key"] for kind in SPOILT for line in lines_of(generated, kind)}
    outliers = {line["event_id"]: line for line in lines_of(generated, "outlier")}
    assert {line["variant"] for line in outliers.values()} == {"high", "near_zero", "negative"}
    highest = max(float(e["value"]) for e, _ in parsed(records) if e["event_id"] not in outliers.keys() | spoilt)
    for event, _ in parsed(records):
        if event["event_id"] in spoilt:
            continue
        times_usual = float(event["value"]) / usual[event["event_type"]]
        line = outliers.get(event["event_id"])
        if line is None:
            assert 0.2 < times_usual < 5.3
        else:
            assert float(event["value"]) == line["value"]
            assert times_usual < 0.03 or (times_usual > 7.9 and line["value"] > 0.7 * highest)
    assert len(outliers) <= 0.005 * len(records)


def test_windows_lie_apart_after_the_baseline_and_can_be_seen(generated, records):
    times = np.array([event_ms(event["timestamp"]) for event, _ in parsed(records) if event["timestamp"].startswith("2025")])
    arrivals = np.array([record.timestamp_ms for record in records])
    windows = {kind: lines_of(generated, kind)[0] for kind in ("spike", "gap", "drift")}
    span = {kind: (event_ms(line["window_start"]), event_ms(line["window_end"])) for kind, line in windows.items()}
    assert len({start // DAY for start, _ in span.values()}) == 3, "each has a day of its own"
    for start, end in span.values():
        assert START_MS + 3 * DAY <= start < end <= START_MS + 14 * DAY

    start, end = span["gap"]
    assert 90 * MINUTE <= end - start <= 3 * HOUR
    assert not np.any((times >= start) & (times < end))
    assert not np.any((arrivals >= start + MAX_DELAY_MS) & (arrivals < end)), "nothing late or repeated breaks the silence"
    same_hours = [np.sum((times >= start + n * DAY) & (times < end + n * DAY)) for n in (-7, -3, -2, -1, 1, 2, 3, 7)]
    assert np.median([n for n in same_hours if n]) > 0.8 * (end - start) / DAY * len(times) / 14, "in a busy time"

    start, end = span["spike"]
    assert 10 * MINUTE <= end - start <= 20 * MINUTE
    around = np.sum((times >= start - 2 * HOUR) & (times < end + 2 * HOUR)) - (inside := np.sum((times >= start) & (times < end)))
    assert inside == windows["spike"]["events"]
    assert 4 < inside / (around * (end - start) / (4 * HOUR)) < 14


def test_drift_raises_the_values_of_every_type_on_one_day(generated, records):
    line = lines_of(generated, "drift")[0]
    spoilt = {line["key"] for kind in SPOILT for line in lines_of(generated, kind)}
    for kind in TYPES:
        events = [e for e, _ in parsed(records) if e["event_type"] == kind.name and e["event_id"] not in spoilt]
        inside = np.array([line["window_start"] <= event["timestamp"] < line["window_end"] for event in events])
        values = np.array([float(event["value"]) for event in events])
        assert np.median(values[inside]) / np.median(values[~inside]) == pytest.approx(line["factor"], rel=0.12)


def test_new_field_stands_in_all_events_from_a_moment_on(generated, records):
    line = lines_of(generated, "new_field")[0]
    spoilt = {line["key"] for kind in SPOILT for line in lines_of(generated, kind)}
    events = {event["event_id"]: event for event, _ in parsed(records) if event["event_id"] not in spoilt}
    carriers = {event_id for event_id, event in events.items() if "channel" in event}
    assert carriers == {event_id for event_id, event in events.items() if event["timestamp"] >= line["window_start"]}
    assert len(carriers) == line["valid_events"]
    assert carriers == {event_id for event_id in events if int(line["first_event_id"]) <= int(event_id) <= int(line["last_event_id"])}


def test_rhythm_of_day_and_week():
    events = [json.loads(record.value) for record in generate(60_000, start=START, faults=[])]
    at = np.array([event_ms(event["timestamp"]) for event in events])
    names = np.array([event["event_type"] for event in events])
    weekend = np.isin((at // DAY + 3) % 7, (5, 6))
    for kind in TYPES:
        mine = names == kind.name
        assert mine.mean() == pytest.approx(kind.share, abs=0.05)
        angle = np.angle(np.mean(np.exp(2j * np.pi * (at[mine] % DAY) / DAY)))
        hours_apart = (angle / (2 * np.pi) * 24 - kind.peak_hour + 12) % 24 - 12
        assert abs(hours_apart) < 1
        concentration = abs(np.mean(np.exp(2j * np.pi * (at[mine] % DAY) / DAY)))
        assert concentration == pytest.approx(special.i1(kind.swing) / special.i0(kind.swing), rel=0.08), "as exp(swing · cos) has it"
        per_weekend_day, per_workday = np.sum(weekend & mine) / 4, np.sum(~weekend & mine) / 10
        assert per_weekend_day / per_workday == pytest.approx(kind.weekend, rel=0.12)


def test_values_of_a_type_are_log_normal():
    events = [json.loads(record.value) for record in generate(30_000, start=START, faults=[])]
    for kind in TYPES:
        logs = np.log([float(event["value"]) for event in events if event["event_type"] == kind.name])
        assert np.median(logs) == pytest.approx(np.log(kind.usual_value), abs=0.03)
        assert np.std(logs) == pytest.approx(kind.spread, rel=0.08)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_can_be_put_in_alone(fault):
    generated = generate(10_000, start=START, faults=[fault])
    assert generated.truth[0]["faults"] == [fault]
    assert {line["kind"] for line in generated.truth[1:]} == {fault}


def test_by_default_the_last_fourteen_days_and_two_calls_share_no_id():
    before = time.time_ns() // 1_000_000
    first, second = generate(1_000), generate(1_000)
    assert before - 14 * DAY - MINUTE <= min(record.timestamp_ms for record in first)
    assert max(record.timestamp_ms for record in first) <= before
    assert first.first_id != second.first_id or first.truth == second.truth, "unless made within one millisecond"


def test_what_has_no_room_is_left_out_and_said():
    summary = generate(200, start=START, duration=timedelta(hours=3)).truth[0]
    assert set(summary["left_out"]) == {"spike", "gap", "drift"}
    assert set(summary["faults"]) == set(FAULTS) - {"spike", "gap", "drift"}
    assert generate(5, start=START, duration=timedelta(minutes=1)).truth[0]["faults"] == ["new_field"]
    with pytest.raises(UsageError, match="'gap' needs a duration of at least 7 days"):
        generate(10_000, start=START, duration=timedelta(days=2), faults=["gap"])
    with pytest.raises(UsageError, match="'late' needs at least 100 events"):
        generate(99, start=START, faults=["late"])


@pytest.mark.parametrize("days", [7, 8, 9])
def test_seven_days_have_room_for_every_fault_from_whatever_hour_on(days):
    for hour in (0, 1, 12, 23):
        summary = generate(10_000, start=START + timedelta(hours=hour), duration=timedelta(days=days)).truth[0]
        assert summary["left_out"] == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"count": 0}, "count 0"),
        ({"seed": -1}, "seed -1"),
        ({"duration": timedelta(seconds=59)}, "one minute"),
        ({"start": datetime(2025, 4, 1)}, "no time zone"),
        ({"start": datetime.now(UTC) - timedelta(days=1)}, "future"),
        ({"faults": ["late", "lightning"]}, "'lightning' is not known"),
    ],
)
def test_wrong_use_is_said(arguments, said):
    with pytest.raises(UsageError, match=said):
        generate(**arguments)


def test_stream_stamps_events_with_the_moment_they_are_asked_for():
    before = time.time_ns() // 1_000_000
    records = list(islice(stream(seed=3), 2_500))
    after = time.time_ns() // 1_000_000
    timestamps = [record.timestamp_ms for record in records]
    assert timestamps == sorted(timestamps) and before <= timestamps[0] and timestamps[-1] <= after
    assert len({record.key for record in records}) == 2_500
    for record in records:
        event = json.loads(record.value)
        assert record.key == event["event_id"].encode()
        assert 0 <= record.timestamp_ms - event_ms(event["timestamp"]) <= MAX_DELAY_MS
        assert int(event["value"]) > 0
    assert list(stream(duration=timedelta(0))) == []


def test_ground_truth_of_several_calls_is_kept_together(tmp_path):
    path = tmp_path / "new" / "ground_truth.jsonl"
    first, second = generate(200, start=START, seed=1), generate(200, start=START, seed=2)
    write_ground_truth(path, first.truth)
    write_ground_truth(path, second.truth)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [*first.truth, *second.truth]


def test_the_sample_comes_from_the_generator():
    records = generate(100, start=START, duration=timedelta(days=1), seed=997, faults=[])
    assert SAMPLE.read_text() == "[\n" + ",\n".join(record.value.decode() for record in records) + "\n]\n"
    assert len(json.loads(SAMPLE.read_text())) == 100
