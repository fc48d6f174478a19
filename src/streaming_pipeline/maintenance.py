"""`table_maintenance`: compact what is closed, and take away what no version needs any more."""

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from pyspark.sql import SparkSession

from streaming_pipeline import tables
from streaming_pipeline.contract import load_contract
from streaming_pipeline.settings import Settings


@dataclass(frozen=True)
class Maintenance:
    """What was done to each table."""

    records: int
    tables: tuple[dict[str, Any], ...]


def maintain_tables(spark: SparkSession, settings: Settings) -> Maintenance:
    """OPTIMIZE silver's and gold's closed dates that have more than one file, and VACUUM every table.

    A date is closed once it is over in UTC: Z-ordering rewrites what it touches each time, so that the open date is left alone, and
    a closed one until late events have added to it. Must not run beside the main job: the two would conflict over files.
    """
    contract = load_contract(settings.contract_path)
    every = tables.all_tables(contract)
    tables.create_missing(spark, settings, every)
    zorder = {"silver_events": contract.event_time_field, "gold_anomaly_predictions": "anomaly_score"}
    done = []
    for table in every:
        name = settings.table(table.name)
        files_before = spark.table(name).inputFiles()
        dates = closed_dates(files_before, datetime.now(UTC).date()) if table.name in zorder else []
        # Optimized date by date: one bounded rewrite each, and one that fails does not undo the others.
        for day in dates:
            spark.sql(f"OPTIMIZE {name} WHERE event_date = DATE'{day}' ZORDER BY (`{zorder[table.name]}`)")
        if table.name not in zorder and len(files_before) > 1:
            spark.sql(f"OPTIMIZE {name}")
        spark.sql(f"VACUUM {name}")
        files_after = len(spark.table(name).inputFiles())
        done.append({"table_name": table.name, "dates": len(dates), "files_before": len(files_before), "files_after": files_after})
    return Maintenance(len(done), tuple(done))


def closed_dates(files: list[str], today: date) -> list[date]:
    """The dates before `today` that have more than one of the data files, whose paths hold `event_date=YYYY-MM-DD`."""
    days = Counter(date.fromisoformat(found[1]) for file in files if (found := re.search(r"event_date=(\d{4}-\d{2}-\d{2})", file)))
    return sorted(day for day, count in days.items() if day < today and count > 1)
