"""`table_maintenance`: compact what is closed, and take away what no version needs any more."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.json_files import Damaged, read_json
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.core.tables import Table

_STATES_KEPT = 24


def maintain_tables(spark: SparkSession, settings: Settings) -> list[dict[str, Any]]:
    """OPTIMIZE of silver and gold the closed dates that have more than one file and new rows, of other tables all; VACUUM every table.

    A date is closed once it is over in UTC: Z-ordering rewrites what it touches each time, so that the open date is left alone, and
    a closed one until late events have added to it. Must not run beside the main job: the two would conflict over files.
    The table that was maintained longest ago comes first, so that a run that is cut short starves none. Returns for each table what was
    done.
    """
    contract = load_contract(settings.contract_path)
    every = tables.all_tables(contract)
    tables.create_missing(spark, settings, every)
    zorder = {"silver_events": contract.event_time_field, "gold_anomaly_predictions": "anomaly_score"}
    written_at = {"silver_events": "processed_at", "gold_anomaly_predictions": "scored_at"}
    done = []
    for table in longest_ago_first(every, last := Path(settings.runs_dir, settings.schema, "maintained.json")):
        name = settings.table(table.name)
        if table is tables.MONITOR_STATE:
            # The newest look's counts; a day's worth is kept to look at.
            newest = spark.table(name).agg(F.max("look").alias("look")).first()["look"] or 0
            spark.sql(f"DELETE FROM {name} WHERE look <= {newest - _STATES_KEPT}")
        tables.keep_properties(spark, settings, table)
        files_before = len(spark.table(name).inputFiles())
        dates = closed_dates(spark, name, datetime.now(UTC).date()) if table.name in zorder else []
        if dates:
            dates = with_new_rows(spark, name, dates, written_at[table.name])
        # Optimized date by date: one bounded rewrite each, and one that fails does not undo the others.
        for day in dates:
            spark.sql(f"OPTIMIZE {name} WHERE event_date = DATE'{day}' ZORDER BY (`{zorder[table.name]}`)")
        if table.name not in zorder and files_before > 1:
            spark.sql(f"OPTIMIZE {name}")
        spark.sql(f"VACUUM {name}")
        files_after = len(spark.table(name).inputFiles())
        done.append({"table_name": table.name, "dates": len(dates), "files_before": files_before, "files_after": files_after})
        remember(last, table)
    return done


def longest_ago_first(every: Sequence[Table], last: Path) -> list[Table]:
    """The tables in the order in which the file `last` says that they were maintained; before them those that it does not name."""
    held = _maintained(last)
    return sorted(every, key=lambda table: held.get(table.name, ""))


def remember(last: Path, table: Table) -> None:
    """Put down that a table has been maintained now. In place, since volumes do not know how to rename."""
    last.parent.mkdir(parents=True, exist_ok=True)
    last.write_text(json.dumps({**_maintained(last), table.name: datetime.now(UTC).isoformat()}), encoding="utf-8")


def _maintained(last: Path) -> dict[str, str]:
    """Table → when it was last maintained. A file that cannot be read says nothing: only the order is lost."""
    try:
        held = read_json(last)
    except (FileNotFoundError, Damaged):
        return {}
    return {name: text for name, text in held.items() if isinstance(text, str)} if isinstance(held, dict) else {}


def closed_dates(spark: SparkSession, name: str, today: date) -> list[date]:
    """The dates before `today` that have more than one data file."""
    files = spark.table(name).where(F.col("event_date") < F.lit(today)).select("event_date", "_metadata.file_path").distinct()
    return sorted(row["event_date"] for row in files.groupBy("event_date").count().where("count > 1").collect())


def with_new_rows(spark: SparkSession, name: str, dates: Sequence[date], written_at: str) -> list[date]:
    """Those of the dates whose newest row (by the column `written_at`) is newer than their last OPTIMIZE.

    A date that is larger than OPTIMIZE's target size keeps more than one file for good, which is no reason to rewrite it each night.
    The table's history tells of an OPTIMIZE for as long as the table keeps its log (30 days); without one a date counts as new.
    """
    rows = spark.table(name).where(F.col("event_date").isin(list(dates)))
    newest = rows.groupBy("event_date").agg(F.max(written_at).alias("newest"))
    # Of an OPTIMIZE of one date the history tells as text: ["('event_date = 2026-03-01)"]; before the sign may stand a number.
    days = F.regexp_extract_all(F.col("operationParameters")["predicate"], F.lit(r"event_date\S* = \D*(\d{4}-\d{2}-\d{2})"))
    optimized = (
        spark.sql(f"DESCRIBE HISTORY {name}")
        .where("operation = 'OPTIMIZE'")
        .select(F.explode(days.cast("array<date>")).alias("event_date"), "timestamp")
        .groupBy("event_date")
        .agg(F.max("timestamp").alias("optimized"))
    )
    is_new = F.coalesce(F.col("newest") > F.col("optimized"), F.lit(True))
    return sorted(row["event_date"] for row in newest.join(optimized, "event_date", "left").where(is_new).collect())
