"""Files that a run leaves for the next one, damaged in every way: they are named and set aside, and the rest counts. No JVM.

The journal of alerts, contract pins, what monitoring remembers, the broker's state and checkpoints have theirs where they are tested.
"""

import json
import os

import pytest

from laptop.report.event_log import jobs_within
from laptop.services import jars
from streaming_pipeline.core.json_files import MOST_BYTES, Damaged, read_json, set_aside
from streaming_pipeline.core.run_log import collect_steps, timed_step


def make(place, content):
    """A file with this content, or a folder, a pipe, or something very large."""
    if content == "folder":
        place.mkdir()
        (place / "in it").touch()
    elif content == "pipe":
        os.mkfifo(place)
    elif content == "huge":
        with place.open("wb") as file:
            file.truncate(MOST_BYTES + 1)
    else:
        place.write_bytes(content)


KINDS = [b"", b"{", b"\xff\x00", b"[" * 100_000, b"9" * 5_000, "folder", "pipe", "huge"]


@pytest.mark.parametrize("content", KINDS, ids=lambda content: str(content[:5]))
def test_whatever_is_no_json_is_damaged_and_can_be_set_aside(tmp_path, content):
    file = tmp_path / "a\nb.json"
    make(file, content)
    with pytest.raises(Damaged) as caught:
        read_json(file)
    said = set_aside(file, str(caught.value))
    assert said.isprintable() and "it was set aside as" in said and str(caught.value) in said
    assert [left.name for left in tmp_path.iterdir()] == ["a\nb.json.damaged"]


def test_a_file_that_may_not_be_renamed_is_named_all_the_same(tmp_path):
    (tmp_path / "a.json").write_text("{")
    make(tmp_path / "a.json.damaged", "folder")
    assert "nor set aside (Is a directory): delete it." in set_aside(tmp_path / "a.json", "it is not JSON")


STEP = {"run_time": "2026-03-01T12:00:00+00:00", "task": "silver_write", "elapsed_seconds": 1.5, "records": 7}
WRONG = ({"run_time": "now"}, {"elapsed_seconds": "x"}, {"records": "7"}, {"task": None}, {"more": 1})


@pytest.mark.parametrize(
    "content",
    [*KINDS, b"5", b"[]", b"null", b"{}"] + [json.dumps(STEP | change).encode() for change in WRONG],
    ids=lambda content: str(content[:60]),
)  # fmt: skip
def test_a_step_that_cannot_be_read_is_said_and_the_others_count(tmp_path, capsys, content):
    for records in (1, 2):
        with timed_step(str(tmp_path), "silver_write") as step:
            step.records = records
    make(tmp_path / "steps" / "silver_write.0.json", content)
    assert [step.records for step in collect_steps(str(tmp_path), ("silver_write",))] == [1, 2]
    assert "silver_write.0.json" in capsys.readouterr().out
    # It is said once, and no step is counted twice.
    assert (collect_steps(str(tmp_path), ("silver_write",)), capsys.readouterr().out) == ((), "")


@pytest.mark.parametrize("content", ["folder", b"", b"no zstd", b"\x28\xb5\x2f\xfd\x00"])
def test_a_damaged_event_log_leaves_its_part_of_the_report_empty(tmp_path, content):
    make(tmp_path / "events.zstd", content)
    assert jobs_within(tmp_path, [(0, 1e12)]) == []


@pytest.mark.parametrize("text", ["", "5", "[]", "null", '{"a.jar": 1}', '{"a.jar": "x"}'])
def test_jars_whose_manifest_is_damaged_are_fetched_anew(tmp_path, text):
    (tmp_path / jars._MANIFEST).write_text(text)
    assert jars._whole(tmp_path) == []
