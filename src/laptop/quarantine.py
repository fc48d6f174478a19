"""`quarantine list` and `quarantine show`: which records were rejected and for which values, without changing any."""

import re
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from laptop.not_yet import has_table, why_missing
from laptop.sql import check_has_tables, render, run_query
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.foreign_text import harmless
from streaming_pipeline.core.wording import plural
from streaming_pipeline.queries import query
from streaming_pipeline.silver.replay import Selection, check_reason

_RECORD = re.compile(r"(\d{1,9})/(\d{1,18})")
_COLUMNS = (
    "topic, partition, offset, kafka_timestamp, stage, reasons, contract_fingerprint, quarantined_at, resolved_at, "
    "make_valid_utf8(CAST(raw_payload AS STRING)) AS payload"
)


def list_reasons(home: Path, schema: str, choice: Selection, form: str, console: Console) -> None:
    """Print the open records by reason: how many, with which values of the field, and the newest of them.

    Raises `UsageError` for a reason for which nothing was ever rejected.
    """
    columns, rows = _ask(home, schema, query("quarantine_reasons").replace("resolved_at IS NULL", choice.sql()))
    if not rows:
        _check_reason(home, schema, choice)
    if form == "table":
        rows = [dict(zip(columns, row, strict=True)) for row in rows]
        columns = ["reason", "records", "values", "newest", "example", "first_seen", "last_seen"]
        for row in rows:
            row["values"] = spelled(row["frequent_values"], row["distinct_values"])
            row["newest"] = f"{row['partition']}/{row['offset']}"
        rows = [tuple(row[name] for name in columns) for row in rows]
    else:
        rows = [tuple([one.asDict() for one in value] if isinstance(value, list) else value for value in row) for row in rows]
    if rows or form != "table":
        render(columns, rows, form, console)
    else:
        console.print(_nothing(home, schema), soft_wrap=True, highlight=False)


def show_record(home: Path, schema: str, record: str, choice: Selection, form: str, console: Console) -> None:
    """Print one rejected record whole: that of `record` (`PARTITION/OFFSET`), else the newest open one of the choice.

    Raises `UsageError` if there is none.
    """
    where = choice.sql()
    if record:
        found = _RECORD.fullmatch(record)
        if not found:
            raise UsageError(f"{record!r} is no record: write PARTITION/OFFSET, such as 0/17, as `quarantine list` has it.")
        where = f"partition = {found[1]} AND offset = {found[2]}"
    order = "ORDER BY quarantined_at DESC, partition DESC, offset DESC LIMIT 1"
    columns, rows = _ask(home, schema, f"SELECT {_COLUMNS} FROM quarantined_events WHERE {where} {order}")
    if not rows:
        _check_reason(home, schema, choice)
        raise UsageError(f"{_nothing(home, schema, record)} `quarantine list` shows what there is.")
    if form != "table":
        render(columns, rows, form, console)
        return
    held = dict(zip(columns, rows[0], strict=True))
    resolved = f"{_time(held['resolved_at'])} by a replay" if held["resolved_at"] else "no, it is open"
    reasons = held["reasons"]
    for name, text in {
        "record": f"{held['partition']}/{held['offset']} of {held['topic']}",
        "arrived": _time(held["kafka_timestamp"]),
        "rejected": f"{_time(held['quarantined_at'])} by {held['stage']}",
        "resolved": resolved,
        "reasons": reasons.strip("[]") if isinstance(reasons, str) else ", ".join(reasons),
        "contract": held["contract_fingerprint"],
        "payload": "none: a tombstone" if held["payload"] is None else held["payload"],
    }.items():
        console.print(Text.assemble((f"{name:<9}", "bold"), " ", harmless(text)), soft_wrap=True)


def _time(value: datetime | str) -> str:
    """A time as a person reads it; in the record of a time that Python cannot name, all times came as texts."""
    return f"{value:%Y-%m-%d %H:%M:%S} UTC" if isinstance(value, datetime) else f"{value} UTC"


def spelled(values: list, distinct: int) -> str:
    """Values with how often each occurs, the most frequent first: `Click (12), "click " (3), and 4 others`."""
    texts = [f"{_quoted(one['value'])} ({one['records']:,})" for one in values]
    more = distinct - len(values)
    return ", ".join([*texts, *([f"and {plural(more, 'other')}"] if more > 0 else [])])


def _quoted(value: str) -> str:
    """The value; in quotes where its begin and end could not be seen otherwise."""
    return f'"{harmless(value)}"' if value != value.strip() or not value or "," in value else harmless(value)


def _ask(home: Path, schema: str, text: str) -> tuple[list[str], list[tuple]]:
    """What a query over `quarantined_events` answers; nothing where there is no such table yet."""
    check_has_tables(home, schema)
    return run_query(home, text, schema) if has_table(home, schema, "quarantined_events") else ([], [])


def _nothing(home: Path, schema: str, record: str = "") -> str:
    """That there is no such record, and why."""
    if not has_table(home, schema, "quarantined_events"):
        return why_missing("quarantined_events")
    return f"Record {record} is not in quarantined_events." if record else "No record of this choice is open."


def _check_reason(home: Path, schema: str, choice: Selection) -> None:
    if choice.reason:
        _, rows = _ask(home, schema, "SELECT DISTINCT explode(reasons) FROM quarantined_events")
        check_reason(choice.reason, [reason for (reason,) in rows])
