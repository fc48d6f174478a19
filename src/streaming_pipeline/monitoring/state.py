"""What one look hands to the next, in `monitor_state`."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core import tables
from streaming_pipeline.core.json_files import UNREADABLE, whole
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.monitoring import profile, values
from streaming_pipeline.monitoring.arrivals import Watch
from streaming_pipeline.monitoring.baseline import Baseline
from streaming_pipeline.monitoring.profile import Profiles
from streaming_pipeline.monitoring.schema import Known
from streaming_pipeline.monitoring.scores import Scores


@dataclass(eq=False)
class State:
    """What one look hands to the next."""

    watches: dict[str, Watch] = field(default_factory=dict)
    memories: values.Memories = field(default_factory=dict)
    open: Profiles = field(default_factory=dict)
    """Windows that are not closed, and the last one that is."""
    next_window: int | None = None
    """The first window whose drift was not judged."""
    last_minute: int | None = None
    """Of the newest arrival."""
    schema: Known = field(default_factory=Known)
    scores: Scores = field(default_factory=Scores)
    baseline_id: int | None = None
    """By which memories and open windows were made."""
    damaged: tuple[str, ...] = ()
    """Detectors, each with its slice, whose rows cannot be read: they begin anew."""


def finished(spark: SparkSession, settings: Settings, look: int, tables_of_look: Iterable[tables.Table]) -> list[Row]:
    """The newest state of a look before this one. What a look of this number wrote that did not come to its end is taken away: it
    wrote its state first."""
    held = spark.table(settings.table("monitor_state"))
    # By their numbers, so that Delta opens the files of these looks and not of all that there ever were.
    newest = held.where(F.col("look") >= look - 1).collect()
    if any(row["look"] >= look for row in newest):
        for table in tables_of_look:
            spark.sql(f"DELETE FROM {settings.table(table.name)} WHERE look >= {look}")
    if before := [row for row in newest if row["look"] < look]:
        return before
    # A look that had nothing to look at has written none.
    last = held.where(F.col("look") < look).agg(F.max("look")).first()[0]
    return held.where(F.col("look") == last).collect() if last is not None else []


def rows(state: State, look: int, now: datetime) -> list[dict[str, Any]]:
    """As rows of `monitor_state`."""
    parts = [("arrivals", name, watch.to_json()) for name, watch in state.watches.items()]
    parts += [("values", f"{column}/{name}", memory.to_json()) for (column, name), memory in state.memories.items()]
    parts += [("drift", "", {"next_window": state.next_window, "open": [profile.to_json(one) for one in state.open.values()]})]
    parts += [("schema", "", state.schema.to_json()), ("scores", "", state.scores.to_json())]
    parts += [("clock", "", {"last_minute": state.last_minute, "baseline_id": state.baseline_id})]
    return [
        {"look": look, "detector": detector, "slice": name, "state": json.dumps(held), "updated_at": now} for detector, name, held in parts
    ]


def load(rows: list[Row], held: Baseline | None) -> State:
    """What the rows remember; memories and open windows only if they were made by the baseline that is in force.

    What cannot be read is left out, and named in `damaged`.
    """
    state, damaged = State(), []
    # The clock first: the others are held against it.
    for row in sorted(rows, key=lambda row: row["detector"] != "clock"):
        try:
            _take(state, row, held)
        except UNREADABLE:
            damaged.append(row)
    state.damaged = tuple(sorted(f"{row['detector']} {row['slice']}".strip() for row in damaged))
    if any(row["detector"] in ("clock", "values", "drift") for row in damaged):
        # As after a new baseline: what hangs on it begins anew together.
        state.memories, state.open, state.next_window, state.baseline_id = {}, {}, None, None
    return state


def _take(state: State, row: Row, held: Baseline | None) -> None:
    """Put what one row remembers to the state."""
    detector, name, kept = row["detector"], row["slice"], json.loads(row["state"])
    is_of_baseline = held is not None and state.baseline_id == held.baseline_id
    if detector == "clock":
        state.last_minute, state.baseline_id = whole(kept["last_minute"]), whole(kept["baseline_id"])
    elif detector == "arrivals":
        state.watches[name] = Watch.from_json(kept)
    elif detector == "schema":
        state.schema = Known.from_json(kept)
    elif detector == "scores":
        state.scores = Scores.from_json(kept)
    elif is_of_baseline and detector == "values":
        column, slice_name = name.split("/", 1)
        state.memories[column, slice_name] = values.ColumnMemory.from_json(kept, held.shape.scaled_edges(column))
    elif is_of_baseline and detector == "drift":
        opened = [profile.from_json(one, held.shape) for one in kept["open"]]
        state.next_window, state.open = whole(kept["next_window"]), {one.key: one for one in opened}
