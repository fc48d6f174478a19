"""`contract check`: what a file's lines would become, before anything is produced."""

import io
import json
from pathlib import Path

import pytest
from bronze_rows import shipped_contract

from laptop import contract_check
from laptop.cli import main
from laptop.contract_check import Checked, check_file, report
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.errors import UsageError

SENSORS = Path(__file__).parents[2] / "examples" / "sensors"


def checked(spark, *lines, contract=None) -> Checked:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return check_file(spark, contract or shipped_contract(), io.BytesIO(b"\n".join(texts)), "mine.jsonl")


def event(event_id, **fields):
    return {"event_id": event_id, "event_type": "click", "timestamp": "2026-03-02T00:00:00Z", "value": "1"} | fields


def test_the_second_example_is_judged_as_its_docs_say(spark):
    contract = load_contract(SENSORS / "event_contract.yml")
    with (SENSORS / "readings.jsonl").open("rb") as file:
        found = check_file(spark, contract, file, "readings.jsonl")
    assert (found.lines, found.rejected, found.repeats) == (362, 5, 1)  # 356 events, and one sent twice
    assert sum(rejection.lines for rejection in found.rejections) >= 5


def test_each_reason_has_a_count_the_first_of_its_lines_and_what_is_wrong_there(spark, monkeypatch):
    monkeypatch.setattr(contract_check, "_CHUNK", 300)  # so that lines lie on either side of a chunk's end
    found = checked(
        spark,
        event("a"),
        event("b", event_type="Click"),
        b"",
        b"{not json}",
        event("c", value="\x1b[31mten" + "n" * 100),
        event("d", event_type="\u202eclick", colour="red"),
        {"event_id": "e"},
        event("a", timestamp="2026-03-05T12:30:00+01:00", size=3, colour="blue"),
        event("f", timestamp="9998-01-01T00:00:00Z"),
        b"\xff\xfe",
    )
    assert (found.lines, found.rejected) == (9, 7)
    assert {(r.reason, r.lines, r.line, r.value) for r in found.rejections} == {
        ("not_allowed:event_type", 2, 2, "'Click'"),
        ("malformed_json", 1, 4, "'{not json}'"),
        ("wrong_type:value", 1, 5, "'\\x1b[31mten" + "n" * 52 + "'…"),
        ("missing:event_type", 1, 7, ""),
        ("missing:timestamp", 1, 7, ""),
        ("missing:value", 1, 7, ""),
        ("out_of_range:timestamp", 1, 9, "'9998-01-01T00:00:00Z'"),
        ("not_utf8", 1, 10, "'\ufffd\ufffd'"),
    }
    assert (found.repeats, found.repeated) == (1, ("'a'", 1, 8))
    assert [f"{time:%m-%d %H:%M}" for time in found.times] == ["03-02 00:00", "03-05 11:30"]
    assert found.unknown == (("'colour'", 2), ("'size'", 1))
    said = list(report(found, shipped_contract()))
    assert said[0] == "9 lines: 2 valid, 7 rejected"
    assert "  not_allowed:event_type          2  such as line 2: 'Click'" in said
    assert all(line.isprintable() for line in said)


def test_where_no_line_is_valid_the_contract_is_doubted(spark):
    found = checked(spark, {"a": 1})
    assert "No line is valid: is this the right contract?" in report(found, shipped_contract())
    assert found.times is None and found.repeated is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--file", "none.jsonl"], "--file none.jsonl cannot be read"),
        (["--file", __file__, "--contract", "none.yml"], "--contract none.yml is no file"),
        (["--file", __file__, "--contract", __file__], f"{__file__} line "),
    ],
)
def test_what_is_wrong_with_the_file_or_the_contract_is_one_sentence(tmp_path, capsys, arguments, said):
    assert main(["contract", "check", "--home", str(tmp_path), *arguments]) == 2
    assert capsys.readouterr().err.startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_one_endless_line_or_of_none_is_refused():
    with Path("/dev/zero").open("rb") as endless, pytest.raises(UsageError, match="line 1 has more than 50,000,000 bytes"):
        list(contract_check._chunks(endless, "/dev/zero"))
    with pytest.raises(UsageError, match=r"nothing\.jsonl is empty"):
        list(contract_check._chunks(io.BytesIO(), "nothing.jsonl"))
