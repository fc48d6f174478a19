"""Bronze → silver: every rule of the contract, re-deliveries, and what a restart must not change."""

import json
import math
import random
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from bronze_rows import DEEP, T0, append_to_bronze, event, kafka_frame, shipped_contract, with_contract, with_field

from streaming_pipeline.bronze.ingest import to_bronze
from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.core.json_files import Damaged
from streaming_pipeline.monitoring.monitor import monitor_silver_events
from streaming_pipeline.silver import cleanse as silver
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver

BAD = {
    b"": ["empty_payload"],
    b" \n\t ": ["empty_payload"],
    None: ["null_payload"],
    b"\xff\xfe{}": ["not_utf8"],
    b'{"event_id": "1"': ["malformed_json"],
    event("1") + b" trailing": ["malformed_json"],
    event("1") + event("2"): ["malformed_json"],
    event("1") + b"]": ["malformed_json"],
    event("1") + b"," + event("2") + b"]": ["malformed_json"],
    event("1") + b',{"_end": "1"}],[': ["malformed_json"],
    event("1") + b',{"_end": "%s"}] ' % shipped_contract().fingerprint.encode() + event("2"): ["malformed_json"],
    b'1,"end":0} ' + event("2"): ["malformed_json"],
    b"{'event_id': '1'}": ["malformed_json"],
    event("1") + b"," + event("2"): ["malformed_json"],
    b"[" + event("1") + b"]": ["not_an_object"],
    b'"text"': ["not_an_object"],
    b"null": ["not_an_object"],
    b'[{"a": 1, "a": 2}]': ["not_an_object"],
    b"NaN": ["malformed_json"],
    b"1," + DEEP: ["malformed_json"],
    b"[" + DEEP + b"]": ["not_an_object"],
    b"{}": ["missing:event_id", "missing:event_type", "missing:timestamp", "missing:value"],
    event("1", value=None): ["missing:value"],
    event("1", event_type=None, value=None): ["missing:event_type", "missing:value"],
    event("1", value="abc"): ["wrong_type:value"],
    event("1", value=""): ["wrong_type:value"],
    event("1", value={"a": 1}): ["wrong_type:value"],
    event("1", value=[1]): ["wrong_type:value"],
    event("1", value="1d"): ["wrong_type:value"],
    event("1", value="0x10"): ["wrong_type:value"],
    event("1", value="0x1p3"): ["wrong_type:value"],
    event("1", value="1d "): ["wrong_type:value"],
    event("1", value="7\u0000"): ["wrong_type:value"],
    event("1", value="\u001f7\u007f"): ["wrong_type:value"],
    event("1", value="NaN"): ["not_finite:value"],
    event("1", value="-Infinity"): ["not_finite:value"],
    event("1", value=float("nan")): ["not_finite:value"],
    event("1", value=float("inf")): ["not_finite:value"],
    event("1").replace(b'"10"', b"1e999"): ["not_finite:value"],
    event("1", value="1e999"): ["not_finite:value"],
    event("1", value="-inf"): ["not_finite:value"],
    event(""): ["wrong_length:event_id"],
    event("x" * 257): ["wrong_length:event_id"],
    event("1", event_id={"a": 1}): ["wrong_type:event_id"],
    event("1", event_id=["1"]): ["wrong_type:event_id"],
    event("1", event_id=1.5): ["wrong_type:event_id"],
    event("1", event_id=1.5, other="1.5"): ["wrong_type:event_id"],
    event("1", event_id=[1], other="[1]"): ["wrong_type:event_id"],
    event("deep").replace(b'"deep"', DEEP): ["wrong_length:event_id", "wrong_type:event_id"],
    event("bare").replace(b'"bare"', b"1e2"): ["wrong_type:event_id"],
    event("bare").replace(b'"bare"', b"1e400"): ["wrong_type:event_id"],
    event("1", event_type="refund"): ["not_allowed:event_type"],
    event("1", event_type="click\n"): ["not_allowed:event_type"],
    event("1", timestamp="2026-03-01T12:00:00"): ["no_zone:timestamp"],
    event("1", timestamp="2026-03-01"): ["no_zone:timestamp"],
    event("1", timestamp="2026-03-01T12:00:00Europe/Paris"): ["no_zone:timestamp"],
    event("1", timestamp="2026-03-01T12:00:00NZ"): ["wrong_type:timestamp"],
    event("1", timestamp="yesterday"): ["wrong_type:timestamp"],
    event("1", timestamp="2026-03-01T12:00Z"): ["wrong_type:timestamp"],
    event("1", timestamp="10:15:00Z"): ["wrong_type:timestamp"],
    event("1", timestamp="1970-01-01T00:00:00Z"): ["out_of_range:timestamp"],
    event("1", timestamp="9999-12-31T23:59:59Z"): ["out_of_range:timestamp"],
    event("1", timestamp="2026-03-03T12:00:06Z"): ["out_of_range:timestamp"],
    # Half of a surrogate pair is no character.
    event("\ud800"): ["not_unicode"],
    event("1", other="\ud83d\\\ude00"): ["not_unicode"],
    event("1", other="\udc00\ud800"): ["not_unicode"],
    # The frames of a schema registry around Avro, of AWS Glue, of Avro's single object and of its file.
    b"\x00\x00\x00\x00\x07\x02ab": ["unsupported_framing"],
    b"\x00\x00\x00\x00\x07\xff\xfe": ["unsupported_framing"],
    b"\x03\x00" + bytes(range(16)) + event("1"): ["unsupported_framing"],
    b"\xc3\x01" + bytes(8) + b"\x02ab": ["unsupported_framing"],
    b"Obj\x01\x04": ["unsupported_framing"],
    b"\x00\x00\x00\x00\x07{": ["malformed_json"],
    b"\x00\x00\x00\x00\x07" + event("1") + event("2"): ["malformed_json"],
    b"\x00": ["malformed_json"],
}
GOOD = [
    event("g1"),
    event("g2", value=1984),
    event("g3", value=19.84),
    event("g4", value="-1e3"),
    event("g5", timestamp="2026-03-01T14:00:00+02:00"),
    event("g6", timestamp="2026-03-01T12:00:00.123456Z"),
    event("g7", extra={"new": ["field"]}),
    b"  " + event("g8") + b"\n",
    event("8", event_id=8),
    event("1.50"),
    event("40 digits").replace(b'"40 digits"', b"9" * 40),
    event("{not json}"),
    event("[1]"),
    event("{}"),
    event('{"a": 1, "a": 2}'),
    event('"NaN"'),
    b"\x00\x00\x00\x86\xa1" + event("[framed]"),
    event("tab", value="\t7\r\n"),
    event("é\u0000日本"),
    event("\ud83d\ude00 as a pair"),
    event(r"\ud800 as a text"),
    event("g9", timestamp="2026-03-01T13:00:00.5+01"),
    # As the JSON serialiser of a schema registry frames it: a zero byte and the schema's id.
    b"\x00\x00\x00\x86\xa1" + event("g10"),
]


def rows(spark, settings, table, *columns):
    """The rows of a table as sorted tuples."""
    return sorted(tuple(row) for row in spark.table(settings.table(table)).select(*columns).collect())


def place(spark, settings):
    """Where every record lies: {offset: [tables]}; the conservation law wants exactly one for each."""
    found = {}
    for table in ("silver_events", "quarantined_events", "duplicate_events"):
        for (offset,) in rows(spark, settings, table, "offset"):
            found.setdefault(offset, []).append(table)
    return found


def test_valid_events_are_typed_and_every_broken_payload_is_quarantined_with_every_reason(spark, offline_settings):
    append_to_bronze(spark, offline_settings, [*BAD, *GOOD])
    counts = cleanse_bronze_to_silver(spark, offline_settings)
    assert (counts.records, counts.quarantined, counts.duplicates) == (len(GOOD), len(BAD), 0)

    quarantined = spark.table(offline_settings.table("quarantined_events")).collect()
    found = {row["offset"]: sorted(row["reasons"]) for row in quarantined}
    assert found == {offset: sorted(reasons) for offset, reasons in enumerate(BAD.values())}
    assert {row["offset"]: row["raw_payload"] and bytes(row["raw_payload"]) for row in quarantined} == dict(enumerate(BAD))
    assert {row["contract_fingerprint"] for row in quarantined} == {shipped_contract().fingerprint}

    silver_rows = {row["event_id"]: row for row in spark.table(offline_settings.table("silver_events")).collect()}
    assert len(silver_rows) == len(GOOD)
    assert [silver_rows[name]["value"] for name in ("g1", "g2", "g3", "g4")] == [10.0, 1984.0, 19.84, -1000.0]
    assert silver_rows["g5"]["timestamp"] == silver_rows["g1"]["timestamp"]
    assert silver_rows["g6"]["timestamp"].microsecond == 123456
    assert str(silver_rows["g1"]["event_date"]) == "2026-03-01"

    plan = Path(offline_settings.run_dir, silver.PLAN_FILE).read_text()
    assert "== Physical Plan ==" in plan and "LeftAnti" in plan


IDS = [
    *("7", "-0", "1.5", "1.0", "1e3", "1E400", "true", "null", "[]", "[1]", "{}", '{"a": [1, {"a": 2}]}', '{"a": 1, "a": 2}', "9" * 60),
    *('""', '"7"', '"1.5"', '"1e3"', '"[]"', '"[1]"', '"{}"', '"{"', r'"{\"a\": 1}"', r'"\u005b\u005d"', '"null"', '"true"', r'"\"NaN\""'),
]
VALUES = [
    *("7", "-1.5", "1e3", "1e-400", "true", "null", "[7]", '{"7": 7}', '"7"', '" 7"', r'"7\n"', r'"7\u0000"', r'"\u00007"', r'"7\u001c"'),
    *(r'"7\u0085"', '"7 d"', '"7d"', '"7f "', '"0x7"', '"7_000"', r'"\u0667"', '"+7"', '".5"', '"5."', '""', '" "', '"[7]"', '"1e9999"'),
]
BEFORE = ["1,", "[", '"']
BEHIND = [
    *(",", "]", "] {}", " {}", ",{}", "}", "x", "\0", "//", "/**/", "\n", ', "end": 0} {}'),
    *(',{"_end": "FINGERPRINT"}] {}', ',"FINGERPRINT"] {}'),
]


def read_by_python(text: str) -> set[str]:
    """The reasons to reject an event, by Python's own reading of JSON and of numbers."""
    try:
        held = json.loads(text)
    except ValueError:
        return {"malformed_json"}
    if not isinstance(held, dict):
        return {"not_an_object"}
    reasons = set()
    match held["event_id"]:
        case None:
            reasons.add("missing:event_id")
        case float() | list() | dict():
            reasons.add("wrong_type:event_id")
        case "":
            reasons.add("wrong_length:event_id")
    match held["value"]:
        case None:
            reasons.add("missing:value")
        case bool() | list() | dict():
            reasons.add("wrong_type:value")
        case value:
            number = re.fullmatch(r"[ \t\r\n]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\r\n]*", str(value))
            if not number:
                reasons.add("wrong_type:value")
            elif not math.isfinite(float(value)):
                reasons.add("not_finite:value")
    return reasons


def test_whatever_a_payload_holds_is_judged_as_python_reads_it(spark):
    texts = [f'{{"event_id": {id_}, "value": {value}}}' for id_ in IDS for value in VALUES]
    texts += [text for plain in texts[::37] for text in (*(f"{plain}{more}" for more in BEHIND), *(f"{more}{plain}" for more in BEFORE))]
    texts = [text.replace("FINGERPRINT", shipped_contract().fingerprint) for text in texts]
    frame = to_bronze(kafka_frame(spark, [text.encode() for text in texts]), shipped_contract(), "id").orderBy("offset")
    absent = {"missing:event_type", "missing:timestamp"}
    judged = [set(row["reasons"]) - absent for row in frame.select("reasons").collect()]
    differing = {text: (here, python) for text, here in zip(texts, judged, strict=True) if here != (python := read_by_python(text))}
    assert differing == {}


def test_bronze_says_which_fields_the_contract_lacks(spark):
    payloads = {
        event("1"): None,
        event("1", value=None): None,
        event("1").replace(b'"10"', b"null"): None,
        event("1", colour="red", size={"value": 1}): ["colour", "size"],
        event("1", value=None, Value="10"): ["Value"],
        event("1")[:-1] + b', "colour": 1, "colour": 2, "event_id": "2"}': ["colour"],
        b"\x00\x00\x00\x00\x07" + event("1", colour="red"): ["colour"],
        b"{" + b",".join(b'"f%d": 1' % n for n in range(1000)) + b"}": [f"f{n}" for n in range(20)],
        b'[{"colour": 1}]': None,
        b"{": None,
    }
    frame = to_bronze(kafka_frame(spark, payloads), shipped_contract(), "id").orderBy("offset")
    assert [row["unknown_fields"] for row in frame.collect()] == list(payloads.values())


def test_first_record_is_the_event_and_the_others_are_duplicates(spark, offline_settings):
    """Within a batch, and over two."""
    append_to_bronze(spark, offline_settings, [event("a"), event("b"), event("a"), event("a", value="99")])
    assert cleanse_bronze_to_silver(spark, offline_settings).note == "2 events, 0 rejected, 2 repeated"
    append_to_bronze(spark, offline_settings, [event("b"), event("c")], first_offset=4)
    cleanse_bronze_to_silver(spark, offline_settings)
    assert rows(spark, offline_settings, "silver_events", "event_id", "offset", "value") == [("a", 0, 10.0), ("b", 1, 10.0), ("c", 5, 10.0)]
    assert rows(spark, offline_settings, "duplicate_events", "event_id", "offset") == [("a", 2), ("a", 3), ("b", 4)]


def test_a_repetition_with_other_content_is_a_conflict_and_one_that_is_only_written_otherwise_is_none(spark, offline_settings, monkeypatch):
    first = {"event_id": "a", "event_type": "click", "timestamp": "2026-03-01T12:00:00Z", "value": "10"}
    same = [
        first,
        dict(reversed(first.items())),
        {**first, "value": 10.0},
        {**first, "timestamp": "2026-03-01T13:00:00+01:00"},
        {**first, "unknown": "to the contract"},
    ]
    other = [{**first, "value": "11"}, {**first, "event_type": "view"}, {**first, "timestamp": "2026-03-01T12:00:00.000001Z"}]
    lines = [json.dumps(one, indent=4).encode() for one in (*same, *other)]
    append_to_bronze(spark, offline_settings, lines)
    cleanse_bronze_to_silver(spark, offline_settings)
    append_to_bronze(spark, offline_settings, [lines[5], lines[0], event("b")], first_offset=8)
    cleanse_bronze_to_silver(spark, offline_settings)
    found = rows(spark, offline_settings, "duplicate_events", "offset", "is_conflict")
    assert found == [*((n, False) for n in range(1, 5)), *((n, True) for n in range(5, 9)), (9, False)]
    hashes = dict(rows(spark, offline_settings, "duplicate_events", "offset", "payload_hash"))
    assert len({hashes[n] for n in (1, 2, 3, 4, 9)}) == 1 and len({hashes[n] for n in (1, 5, 6, 7)}) == 4 and hashes[5] == hashes[8]
    look = monitor_silver_events(spark, offline_settings)
    assert look.conflicting_events == 4 and "4 records have the id of an event and other content" in look.note

    # So many that they are not kept in memory are found to be the same.
    monkeypatch.setattr(silver, "_MOST_AT_HAND", 1)
    append_to_bronze(spark, offline_settings, [lines[5], lines[0], lines[6], event("c"), event("c")], first_offset=11)
    cleanse_bronze_to_silver(spark, offline_settings)
    again = [row for row in rows(spark, offline_settings, "duplicate_events", "offset", "is_conflict") if row[0] > 10]
    assert again == [(11, True), (12, False), (13, True), (15, False)]
    assert monitor_silver_events(spark, offline_settings).conflicting_events == 2


def test_a_field_that_only_the_later_contract_has_makes_no_conflict(spark, offline_settings, tmp_path):
    payload = event("a", channel="web")
    append_to_bronze(spark, offline_settings, [payload])
    cleanse_bronze_to_silver(spark, offline_settings)
    changed = with_field(offline_settings, tmp_path, "channel")
    arrived = [payload, event("a", channel="app"), event("a")]
    append_to_bronze(spark, changed, arrived, first_offset=1, contract=load_contract(changed.contract_path))
    cleanse_bronze_to_silver(spark, changed)
    assert rows(spark, changed, "duplicate_events", "offset", "is_conflict") == [(1, False), (2, True), (3, True)]


def test_duplicates_of_an_older_version_get_the_columns_that_they_lack(spark, offline_settings):
    new = ("is_conflict", "payload_hash")
    older = tuple(column for column in tables.DUPLICATE_EVENTS.columns if column[0] not in new)
    row = {"topic_id": "older", "topic": "events", "partition": 0, "offset": 7, "event_id": "a", "processed_at": T0}
    tables.append_rows(spark, offline_settings, replace(tables.DUPLICATE_EVENTS, columns=older), [row])
    append_to_bronze(spark, offline_settings, [event("a"), event("a", value="11")])
    cleanse_bronze_to_silver(spark, offline_settings)
    held = spark.table(offline_settings.table("duplicate_events")).orderBy("offset").collect()
    assert [(row["offset"], row["is_conflict"]) for row in held] == [(1, True), (7, None)]


def test_an_id_may_be_a_number_and_is_the_same_however_it_is_written(spark, offline_settings, tmp_path):
    text_id = "logicalType: string\n        required: true\n        primaryKey: true\n        logicalTypeOptions:\n          minLength: 1\n"
    number_id = "logicalType: integer\n        required: true\n        primaryKey: true\n"
    settings = with_contract(offline_settings, tmp_path, f"{text_id}          maxLength: 256\n", number_id)
    contract = load_contract(settings.contract_path)
    append_to_bronze(spark, settings, [event("", event_id=name) for name in (7, "7", "007", 8)], contract=contract)
    counts = cleanse_bronze_to_silver(spark, settings)
    assert (counts.records, counts.duplicates, counts.quarantined) == (2, 2, 0)
    append_to_bronze(spark, settings, [event("", event_id="+8")], contract=contract, first_offset=4)
    assert cleanse_bronze_to_silver(spark, settings).duplicates == 1
    assert rows(spark, settings, "silver_events", "event_id") == [(7,), (8,)]
    assert rows(spark, settings, "duplicate_events", "offset", "event_id") == [(1, "7"), (2, "7"), (4, "8")]


def test_an_event_that_is_days_late_goes_to_its_own_date_and_is_once_there(spark, offline_settings):
    late = T0 - timedelta(days=9)
    append_to_bronze(spark, offline_settings, [event("now"), event("late", at=late)])
    cleanse_bronze_to_silver(spark, offline_settings)
    # A re-delivery at the late date, another event there, and one with the same id so far away that it is another one.
    payloads = [event("late", at=late), event("later", at=late), event("later", at=late), event("now", at=late)]
    append_to_bronze(spark, offline_settings, payloads, first_offset=2)
    cleanse_bronze_to_silver(spark, offline_settings)
    old, new = str(late.date()), str(T0.date())
    found = {(row["event_id"], str(row["event_date"])) for row in spark.table(offline_settings.table("silver_events")).collect()}
    assert found == {("now", new), ("late", old), ("later", old), ("now", old)}
    assert rows(spark, offline_settings, "duplicate_events", "event_id", "offset") == [("late", 2), ("later", 4)]
    files = spark.table(offline_settings.table("silver_events")).inputFiles()
    assert {file.split("event_date=")[1].split("/")[0] for file in files} == {old, new}


def kept_and_repeated(dates: list[int], window_days: int) -> tuple[list[int], list[int]]:
    """The rule in plain Python, for the dates (as day numbers) of one id in order: places of events, places of re-deliveries."""
    kept, repeated = [], []
    for place, day in enumerate(dates):
        near = any(abs(dates[other] - day) <= window_days for other in kept)
        (repeated if near else kept).append(place)
    return kept, repeated


def test_one_batch_and_many_find_the_same_repetitions_when_records_come_in_order(spark):
    """An id repeats what was kept of it within the window, whether that came in this batch or an earlier one."""
    rng = random.Random(5)
    contract, ids = shipped_contract(), [f"id-{n}" for n in range(12)]
    records = [(rng.choice(ids), T0.date() + timedelta(days=rng.randrange(6))) for _ in range(120)]
    schema = "event_id string, event_date date, kafka_timestamp timestamp, topic string, topic_id string, partition int, offset bigint"
    rows = [(name, day, T0 + timedelta(seconds=place), "events", "a", 0, place) for place, (name, day) in enumerate(records)]

    for window_days in (0, 2):
        expected = set()
        for name in ids:
            places = [place for place, (other, _) in enumerate(records) if other == name]
            days = [records[place][1].toordinal() for place in places]
            expected |= {places[repeated] for repeated in kept_and_repeated(days, window_days)[1]}

        def found(batch, held, window_days=window_days):
            frames = [spark.createDataFrame(part, schema) for part in (batch, held)]
            return {row["offset"] for row in silver.repetitions(*frames, contract, window_days).collect()}

        assert found(rows, []) == expected
        held, in_batches = [], set()
        for first in range(0, len(rows), 60):
            batch = rows[first : first + 60]
            repeated = found(batch, held)
            in_batches |= repeated
            held += [row for row in batch if row[-1] not in repeated]
        assert in_batches == expected


def test_a_batch_that_is_run_again_after_a_crash_adds_nothing_twice(spark, offline_settings, monkeypatch):
    random.seed(1)
    payloads = [event(str(random.randrange(30)), value=str(random.randrange(2))) for _ in range(50)] + [b"{"] * 5
    random.shuffle(payloads)
    append_to_bronze(spark, offline_settings, payloads)
    contract = shipped_contract()
    tables.create_missing(spark, offline_settings, tables.record_tables(contract))
    bronze = spark.table(offline_settings.table("bronze_events"))
    write = partial(silver.write_batch, bronze, 0, offline_settings, contract, offline_settings.checkpoint("silver"))
    real_append = tables.append

    def crash_before(table):
        def append(settings, name, frame):
            if name == table:
                raise KeyboardInterrupt
            return real_append(settings, name, frame)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(tables, "append", append)
            write()

    # Each attempt comes one write further.
    crash_before("duplicate_events")
    assert {table for tables_ in place(spark, offline_settings).values() for table in tables_} == {"quarantined_events"}
    crash_before("silver_events")
    write()
    placed = place(spark, offline_settings)
    assert sorted(placed) == list(range(55))
    assert all(len(where) == 1 for where in placed.values())
    first: dict[str, bytes] = {}
    conflicts = {}
    for offset, payload in enumerate(payloads):
        if payload != b"{":
            kept = first.setdefault(json.loads(payload)["event_id"], payload)
            conflicts[offset] = payload != kept
    assert len(rows(spark, offline_settings, "silver_events", "event_id")) == len(first)
    found = rows(spark, offline_settings, "duplicate_events", "offset", "is_conflict")
    assert found == sorted((offset, conflicts[offset]) for (offset, _) in found) and len({is_conflict for _, is_conflict in found}) == 2


def test_a_lost_checkpoint_adds_nothing_and_moves_no_record_though_the_contract_changed(spark, offline_settings, tmp_path):
    payloads = [event(str(n % 40)) for n in range(60)] + [event("b", event_type="refund"), b"{", b"", None]
    append_to_bronze(spark, offline_settings, payloads)
    cleanse_bronze_to_silver(spark, offline_settings)
    before = place(spark, offline_settings)
    assert sorted(before) == list(range(64))
    assert all(len(where) == 1 for where in before.values())
    changed = with_contract(offline_settings, tmp_path, "[click, purchase, view]", "[refund]")
    shutil.rmtree(offline_settings.checkpoint_dir)
    assert cleanse_bronze_to_silver(spark, changed) == silver.SilverCounts(0, 0, 0)
    assert place(spark, changed) == before


def test_a_field_that_is_new_in_the_contract_is_read_from_what_arrived_before(spark, offline_settings, tmp_path):
    append_to_bronze(spark, offline_settings, [event("a", channel="web"), event("b")])
    changed = with_field(offline_settings, tmp_path, "channel")
    cleanse_bronze_to_silver(spark, changed)
    assert rows(spark, changed, "silver_events", "event_id", "channel") == [("a", "web"), ("b", None)]


def test_a_contract_deployed_between_two_attempts_changes_nothing_for_the_batch(tmp_path):
    checkpoint = str(tmp_path)
    assert silver.pinned_contract(checkpoint, 7) is None
    silver.pin_contract(checkpoint, 7, "old")
    assert silver.pinned_contract(checkpoint, 7) == "old"
    assert silver.pinned_contract(checkpoint, 8) is None
    silver.pin_contract(checkpoint, 8, "new")
    (pin,) = Path(checkpoint, "contracts").iterdir()
    assert pin.name == "8.json"
    # Half a pin, or one of something else, is not taken for none.
    for text in (pin.read_text()[:-2], "", "5", "[" * 100_000):
        pin.write_text(text)
        with pytest.raises(Damaged):
            silver.pinned_contract(checkpoint, 8)
    silver.pin_contract(checkpoint, 8, "new")
    assert silver.pinned_contract(checkpoint, 8) == "new"


def test_a_damaged_pin_is_no_missing_one_where_records_of_its_batch_are_placed(spark, offline_settings, monkeypatch, tmp_path):
    append_to_bronze(spark, offline_settings, [event("a"), event("b"), event("r", event_type="refund"), b"{"])
    contract = shipped_contract()
    tables.create_missing(spark, offline_settings, tables.record_tables(contract))
    bronze, checkpoint = spark.table(offline_settings.table("bronze_events")), offline_settings.checkpoint("silver")
    pin = Path(checkpoint, "contracts", "0.json")

    def attempt(contract):
        silver.write_batch(bronze, 0, offline_settings, contract, checkpoint)

    # Killed while it wrote the pin, before any record.
    pin.parent.mkdir(parents=True)
    pin.write_text('"half')
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(silver, "write_valid", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        attempt(contract)
    before = place(spark, offline_settings)
    assert before == {2: ["quarantined_events"], 3: ["quarantined_events"]} and silver.pinned_contract(checkpoint, 0) == contract.text

    # The next attempt would take the refund for an event.
    changed = load_contract(with_contract(offline_settings, tmp_path, "[click, purchase, view]", "[click, refund]").contract_path)
    for damage in ("", "5", '"half', json.dumps("kind: no contract")):
        pin.write_text(damage)
        with pytest.raises(PipelineError, match=r"contracts/0\.json is damaged .*Put the contract of that time into .* or delete the file"):
            attempt(changed)
        assert place(spark, offline_settings) == before
    attempt(contract)
    assert sorted(place(spark, offline_settings)) == [0, 1, 2, 3]
    assert all(len(where) == 1 for where in place(spark, offline_settings).values())


def test_a_pattern_is_a_regular_expression_of_sparks_and_an_error_in_it_holds_no_batch_up(spark, offline_settings, tmp_path):
    too_long = event("ab-" * 20_000 + "1")  # to match it, Java's expressions would take more stack than there is
    append_to_bronze(spark, offline_settings, [event("ab1"), event("1"), too_long, event("ab-1" * 100), event("", event_id=None)])
    text = Path(offline_settings.contract_path).read_text()
    (tmp_path / "config").mkdir()
    changed = replace(offline_settings, config_dir=str(tmp_path / "config"))

    def with_pattern(pattern):
        return text.replace("          minLength: 1\n", f"          minLength: 1\n          pattern: '{pattern}'\n", 1)

    Path(changed.contract_path).write_text(with_pattern("(?P<letters>[a-z]+)"))  # as Python writes it
    with pytest.raises(UsageError, match=r"event_contract\.yml: field event_id.*pattern.*not a regular expression"):
        cleanse_bronze_to_silver(spark, changed)
    Path(changed.contract_path).write_text(with_pattern(r"((?<letters>\p{L}++)-?+)+\d"))
    cleanse_bronze_to_silver(spark, changed)
    assert rows(spark, changed, "silver_events", "event_id") == [("ab1",)]
    reasons = {1: "wrong_pattern:event_id", 2: "wrong_length:event_id", 3: "wrong_length:event_id", 4: "missing:event_id"}
    assert rows(spark, changed, "quarantined_events", "offset", "reasons") == [(offset, [reason]) for offset, reason in reasons.items()]


def test_the_first_and_the_last_day_of_time_hold_no_batch_up(spark, offline_settings, tmp_path):
    limits = '        logicalTypeOptions:\n          minimum: "2000-01-01T00:00:00Z"\n'
    unlimited = with_contract(offline_settings, tmp_path, limits, "")
    times = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0000-12-31T23:59:59Z", "9999-12-31T23:59:59-01:00")
    end_of_time = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
    append_to_bronze(
        spark,
        unlimited,
        [event(str(number), timestamp=time) for number, time in enumerate(times)],
        contract=load_contract(unlimited.contract_path),
        kafka_timestamp=end_of_time,
    )
    cleanse_bronze_to_silver(spark, unlimited)
    assert rows(spark, unlimited, "silver_events", "event_id") == [("0",), ("1",)]
    assert rows(spark, unlimited, "quarantined_events", "offset", "reasons") == [(n, ["out_of_range:timestamp"]) for n in (2, 3)]


def test_a_field_renamed_by_its_case_alone_is_told_of(spark, offline_settings, tmp_path):
    append_to_bronze(spark, offline_settings, [event("a")])
    renamed = with_contract(offline_settings, tmp_path, "name: value", "name: Value")
    with pytest.raises(PipelineError, match=r"bronze_events` has the column value, .* give the field Value .* the name of the column"):
        cleanse_bronze_to_silver(spark, renamed)


def test_bronze_keeps_the_bytes(spark):
    payloads = [b"\xff\x00", b"", None, event("1")]
    frame = to_bronze(kafka_frame(spark, payloads), shipped_contract(), "id")
    kept = [row["raw_payload"] for row in frame.orderBy("offset").collect()]
    assert [None if value is None else bytes(value) for value in kept] == payloads
