"""Ten thousand spoilt payloads through a real topic: no run fails, each record ends in one place, and only events become events."""

import json
import random
import string

from bronze_rows import event
from confluent_kafka import Producer
from kafka_records import let_any_time_in, put

from laptop import cli
from laptop.jobs.notebook_page import spark_table
from laptop.report.report import write_report
from streaming_pipeline.bronze.ingest import stream_kafka_to_bronze
from streaming_pipeline.kafka.connection import client_config
from streaming_pipeline.monitoring.monitor import monitor_silver_events
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver

COUNT = 10_000
CODES = {
    *("null_payload", "empty_payload", "not_utf8", "malformed_json", "not_an_object", "not_unicode", "unsupported_framing", "missing"),
    *("wrong_type", "not_finite", "no_zone", "out_of_range", "not_allowed", "wrong_length", "wrong_pattern"),
}
NUMBERS = [*b"1e400 -1e400 1e-400 -0 00 +1 .5 1. 0x1F NaN -Infinity".split(), b"9" * 400, b"9" * 2_000, b"0." + b"1" * 5_000]
STRINGS = ["", " ", "\x00", "\x7f\x1b", "\u2028", "\ufeff", "é" * 300, "😀", "\ud800", "\udc00\ud800", "null", "1_000", "١", "x" * 5_000]
BYTES = [b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xef\xbb\xbf", *(bytes([c]) for c in b'\\"{}[],:\n\x1f')]


def nested(payload: bytes, rng: random.Random) -> bytes:
    depth = rng.choice([2, 50, 900, 1_100, 20_000])
    value = b"[" * depth + b"]" * depth if rng.random() < 0.5 else b'{"a":' * depth + b"1" + b"}" * depth
    return payload.replace(b'"10"', value) if rng.random() < 0.5 else payload[:-1] + b', "other": ' + value + b"}"


def spoil(payload: bytes, rng: random.Random) -> bytes | None:
    """One random way to spoil a payload; some leave it an event."""
    place = rng.randrange(len(payload)) if payload else 0
    field = rng.choice(["event_id", "event_type", "timestamp", "value"])
    match rng.randrange(16):
        case 0:
            return payload[:place] + bytes([payload[place] ^ (1 << rng.randrange(8))]) + payload[place + 1 :] if payload else b""
        case 1:
            return payload[:place]
        case 2:
            return payload[:place] + rng.choice(BYTES) * rng.choice([1, 1, 1, 40]) + payload[place:]
        case 3:
            return payload + rng.choice([b"", b",", b"\n", b" "]) + payload
        case 4:
            return nested(payload, rng)
        case 5:
            return payload[:-1] + f', "{field}": {json.dumps(rng.choice(STRINGS))}}}'.encode()  # a name twice
        case 6:
            return payload.replace(b'"10"', rng.choice(NUMBERS))
        case 7:
            return payload.replace(
                b'"10"', json.dumps(rng.choice(STRINGS), ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
            )
        case 8:
            encoding = rng.choice(["utf-16", "utf-32", "utf-8-sig", "cp037"])
            return payload.decode("utf-8", "replace").encode(encoding, "replace")
        case 9:
            return payload.replace(field.encode(), rng.choice([b"", b"\\u0065", b"Event_Id", "e\u0301".encode()]))
        case 10:
            return rng.choice([b"\x00\x00\x00\x00\x01", b"\x03\x00" + bytes(16), b"\xc3\x01" + bytes(8), b"Obj\x01", b"\x1f\x8b"]) + payload
        case 11:
            return bytes(rng.randrange(256) for _ in range(rng.randrange(60)))
        case 12:
            return "".join(rng.choice(string.printable) for _ in range(rng.randrange(200))).encode()
        case 13:
            return rng.choice([None, b"", b" ", b"null", b"{}", b"[]", b"0", b'""', b"{" * 50, b"true"])
        case 14:
            names = b",".join(b'"%x": %d' % (rng.getrandbits(40), n) for n in range(rng.choice([1, 30, 3_000])))
            return payload[:-1] + b"," + names + b"}"
        case 15 if rng.random() < 0.2:
            return payload.replace(b'Z"', b'"')
        case _:
            return payload.replace(b"2026", rng.choice([b"0000", b"9999", b"12026", b"-2026", b"2026-02-30T", b"202", "２０２６".encode()]))


def payloads() -> list[bytes | None]:
    rng = random.Random(20261124)
    made: list[bytes | None] = [event(f"good {n}") for n in range(500)]
    while len(made) < COUNT - 4:
        payload: bytes | None = event(f"id {rng.randrange(COUNT)}")
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            payload = spoil(payload, rng) if payload else payload
        made.append(payload)
    large = 1_000_000
    made += [event("large", other="x" * large), b"[" * large, b"\xff" * large, b'{"event_id": "' + b"\\" * large]
    return made


def is_json_object(payload: bytes | None) -> bool:
    """By Python's own reading: UTF-8, one object; a schema registry's frame is no part of it."""
    try:
        text = (payload or b"").removeprefix(b"\x00\x00\x00\x00\x01").decode()
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
    except RecursionError:
        return True  # Python says neither yes nor no


def test_ten_thousand_spoilt_payloads_fail_no_run_and_each_ends_in_one_place(spark, settings):
    sent = payloads()
    producer = Producer(client_config(settings.kafka) | {"queue.buffering.max.messages": COUNT, "message.max.bytes": 1_048_000})
    for payload in sent:
        producer.produce(settings.kafka_topic, payload, partition=0)
    assert producer.flush(60) == 0

    assert stream_kafka_to_bronze(spark, settings).records == COUNT
    cleanse_bronze_to_silver(spark, settings)
    look = monitor_silver_events(spark, settings)
    assert (look.unaccounted_records, look.lost_records) == (0, 0)
    assert 0 < len(look.unknown_fields) <= 50

    def rows(name, *columns):
        return {row[0]: row for row in spark.table(settings.table(name)).select("offset", *columns).collect()}

    bronze, silver, rejected = (
        rows("bronze_events", "raw_payload"),
        rows("silver_events", "event_id"),
        rows("quarantined_events", "reasons"),
    )
    duplicates = rows("duplicate_events")
    assert {offset: None if row[1] is None else bytes(row[1]) for offset, row in bronze.items()} == dict(enumerate(sent))
    assert sorted([*silver, *rejected, *duplicates]) == list(range(COUNT))
    assert all(row[1] and {reason.split(":")[0] for reason in row[1]} <= CODES for row in rejected.values())
    # What Python cannot read is no event, what was not spoilt is one, and of the rest there are both.
    assert not [sent[offset][:200] for offset in (*silver, *duplicates) if not is_json_object(sent[offset])]
    assert set(range(500)) <= set(silver)
    assert len(silver) > 1_000 and len(rejected) > 5_000
    assert {row[1] for row in silver.values() if row[1].startswith("good")} == {f"good {n}" for n in range(500)}
    assert {code for row in rejected.values() for reason in row[1] for code in [reason.split(":")[0]]} >= CODES - {"wrong_pattern"}


def test_records_stamped_by_another_clock_than_milliseconds_go_through_all_stages(spark, settings, broker, home, capsys):
    let_any_time_in(broker, settings.kafka_topic)
    put(settings, [0, 1], event("ahead", stranger=1), timestamp=1_764_547_200_000_000)  # microseconds, as milliseconds of the year 57,886
    put(settings, [0], b"no event", timestamp=1_764_547_200_000_000)
    put(settings, [0, 1, 2, 2], event("usual", stranger=1))
    assert stream_kafka_to_bronze(spark, settings).records == 7
    assert cleanse_bronze_to_silver(spark, settings).records == 2
    for _ in range(2):
        look = monitor_silver_events(spark, settings)
        assert (look.unaccounted_records, look.lost_records) == (0, 0)
    assert "57886-04" in spark_table(spark.table(settings.table("bronze_events")))
    assert "57886-04" in spark_table(spark.table(settings.table("quarantined_events")))
    assert cli.main(["quarantine", "show", "--home", str(home), "--schema", settings.schema]) == 0
    assert "+57886-" in capsys.readouterr().out
    write_report(spark, settings, home)
