"""Records reach a real broker and come back as they were, over both listeners; what the broker refuses is an error that says so."""

import io
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from laptop.cli import main
from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.events.consumer import consume
from streaming_pipeline.events.producer import MOST_BYTES, LineRecords, ProduceReport, lines_of, produce
from streaming_pipeline.events.synthetic import Record, generate

START = datetime(2025, 4, 1, tzinfo=UTC)


def numbered(count: int) -> list[Record]:
    return [Record(b"%d" % n, b"payload %d" % n, 1_743_465_600_000 + n) for n in range(count)]


@pytest.mark.parametrize("listener", ["kafka_mtls", "kafka_sasl"])
def test_what_is_produced_can_be_consumed_as_it_was(listener, request):
    kafka = request.getfixturevalue(listener)
    records = list(generate(2_000, start=START, duration=timedelta(days=1)))
    report = produce(kafka, records)
    assert (report.sent, report.delivered, report.failed) == (len(records), len(records), 0)
    assert report.seconds > 0
    consumed = list(consume(kafka, limit=None))
    assert Counter((c.key, c.value, c.timestamp_ms) for c in consumed) == Counter(records)
    assert len({c.partition for c in consumed}) == 3
    for partition in range(3):
        assert [c.offset for c in consumed if c.partition == partition] == list(range(sum(c.partition == partition for c in consumed)))
    assert list(consume(kafka, limit=None)) == consumed or Counter(consume(kafka, limit=None)) == Counter(consumed), "nothing was committed"


def test_events_of_one_id_keep_their_order(kafka_mtls):
    produce(kafka_mtls, [Record(b"same", b"%d" % n, None) for n in range(3_000)])
    assert [int(c.value) for c in consume(kafka_mtls, limit=None)] == list(range(3_000))


def test_more_records_than_the_clients_queue_holds(kafka_mtls):
    report = produce(kafka_mtls, (Record(None, b"x", None) for _ in range(250_000)))
    assert report.delivered == 250_000


def test_a_record_that_the_broker_refuses_is_an_error_with_its_reason(kafka_mtls):
    def records():
        yield from numbered(100)
        yield Record(b"large", random.Random(0).randbytes(3_000_000), None)  # so that it does not compress

    with pytest.raises(PipelineError, match=rf"{kafka_mtls.topic}.* \d+ of \d+ were delivered.*[Mm]essage size too large"):
        produce(kafka_mtls, records())


def test_a_record_that_the_client_refuses_is_the_same_error(kafka_mtls):
    with pytest.raises(PipelineError, match=r"100 of 101 were delivered, then sending stopped. The reason: .*too large"):
        produce(kafka_mtls, [*numbered(100), Record(b"large", b"x" * 60_000_000, None), *numbered(1_000)])
    assert len(list(consume(kafka_mtls, limit=None))) == 100


def test_what_was_handed_over_arrives_even_if_its_source_fails(kafka_mtls):
    def records():
        yield from numbered(50)
        raise ValueError("the file ends in the middle")

    with pytest.raises(ValueError, match="the file ends"):
        produce(kafka_mtls, records())
    assert len(list(consume(kafka_mtls, limit=None))) == 50


def test_who_stops_it_is_told_how_many_were_delivered(kafka_mtls):
    def stopped_at_the_hundredth():
        yield from numbered(100)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=f"^100 records were delivered to {kafka_mtls.topic}.$"):
        produce(kafka_mtls, stopped_at_the_hundredth())


def test_a_topic_that_does_not_exist_is_said_before_anything_is_sent(kafka_mtls):
    nowhere = replace(kafka_mtls, topic="no-such-topic")
    with pytest.raises(PipelineError, match="no-such-topic"):
        produce(nowhere, numbered(1))
    with pytest.raises(PipelineError, match="no-such-topic"):
        consume(nowhere)


def test_progress_and_rate(kafka_mtls):
    told = []
    report = produce(kafka_mtls, numbered(60), rate=100, progress=told.append)
    assert told == sorted(told) and told[-1] == 60 and len(told) > 1
    assert report.seconds >= 59 / 100, "never faster than asked for"
    with pytest.raises(UsageError, match="rate is 0"):
        produce(kafka_mtls, numbered(1), rate=0)


def test_nothing_to_send(kafka_mtls):
    report = produce(kafka_mtls, [])
    assert report == ProduceReport(seconds=report.seconds)
    assert list(consume(kafka_mtls)) == []


def test_consume_the_first_the_newest_and_what_comes(kafka_mtls):
    produce(kafka_mtls, numbered(300))
    assert len(list(consume(kafka_mtls))) == 10
    assert {c.offset for c in consume(kafka_mtls, limit=1)} == {0}
    everything = list(consume(kafka_mtls, limit=None))
    newest = list(consume(kafka_mtls, limit=9, from_beginning=False))
    assert len(newest) == 9
    for partition in range(3):
        assert [c for c in newest if c.partition == partition] == [c for c in everything if c.partition == partition][-3:]
    assert len(list(consume(kafka_mtls, limit=1_000, from_beginning=False))) == 300

    coming = consume(kafka_mtls, limit=20, from_beginning=False, follow=True)
    produce(kafka_mtls, [Record(b"new", b"new %d" % n, None) for n in range(20)])
    assert [c.value for c in coming] == [b"new %d" % n for n in range(20)]
    with pytest.raises(UsageError, match="limit is 0"):
        consume(kafka_mtls, limit=0)


def test_lines_are_sent_as_they_are():
    lines = [
        b'{"event_id": "1", "value": "5"}\n',
        b"\n",
        b'  {"event_id": 2}  \r\n',
        b"   \n",
        b"no json\n",
        b"\xff\xfe\n",
        b"[1, 2]\n",
        b'{"event_id": {"a": 1}}\n',
        b'{"value": "last line without an end"}',
    ]
    records = LineRecords(lines)
    assert list(records) == [
        Record(b"1", b'{"event_id": "1", "value": "5"}', None),
        Record(b"2", b'  {"event_id": 2}  ', None),
        Record(None, b"no json", None),
        Record(None, b"\xff\xfe", None),
        Record(None, b"[1, 2]", None),
        Record(None, b'{"event_id": {"a": 1}}', None),
        Record(None, b'{"value": "last line without an end"}', None),
    ]
    assert records.not_json == 2
    assert [record.key for record in LineRecords([b'{"reading_id": "a", "event_id": "b"}'], "reading_id")] == [b"a"]


def test_deeply_nested_lines_do_not_stop_the_others():
    deep = b"[" * 100_000
    records = LineRecords([deep, b'{"event_id": "1"}', rb'{"event_id": "\ud800"}'])
    assert [record.value for record in records] == [deep, b'{"event_id": "1"}', rb'{"event_id": "\ud800"}']
    assert records.not_json == 1


def test_a_file_without_line_ends_is_read_no_further_than_a_record_may_be_large():
    class Endless(io.RawIOBase):
        read_bytes = 0

        def readinto(self, buffer):
            self.read_bytes += len(buffer)
            buffer[:] = bytes(len(buffer))
            return len(buffer)

        readable = lambda self: True  # noqa: E731

    endless = Endless()
    with pytest.raises(UsageError, match="--file zeros: line 1 has more than 50,000,000 bytes"):
        next(lines_of(io.BufferedReader(endless), "zeros"))
    assert endless.read_bytes < MOST_BYTES + 1_000_000
    lines = lines_of(io.BytesIO(b"{}\n" + b"x" * MOST_BYTES + b"x"), "-")
    assert next(lines) == b"{}\n"
    with pytest.raises(UsageError, match="--file -: line 2 has more"):
        next(lines)


@pytest.mark.parametrize("way", [["--count", "100"], ["--rate", "1000", "--count", "3", "--duration", "1m"], ["--file", "lines"]])
def test_the_command_says_how_many_records_it_delivered(broker, kafka_mtls, tmp_path, monkeypatch, capsys, way):
    for name, value in broker.secrets("SSL", kafka_mtls.topic).items():
        monkeypatch.setenv(name, value)
    lines = tmp_path / "lines"
    lines.write_text('{"event_id": "1"}\n{"event_id": "2"}\n')
    way = [str(lines) if word == "lines" else word for word in way]
    assert main(["produce", *way, "--home", str(tmp_path / "home")]) == 0
    held = len(list(consume(kafka_mtls, limit=None)))
    assert held > 1 and f"{held} records delivered to {kafka_mtls.topic} in " in capsys.readouterr().out
