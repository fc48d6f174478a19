"""Selection records through the rules again, after the contract was put right: events and re-deliveries leave quarantine.

The quarantine's row stays, with its reasons, and says in `resolved_at` when it was resolved. A record is placed first and resolved
after, so that a replay which ends between the two is finished by the next.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.coordinates import KEY, covering, leave_out_any
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.rules import check_patterns
from streaming_pipeline.core.run_log import Step, collect_steps
from streaming_pipeline.core.settings import Settings, parse_period
from streaming_pipeline.silver import cleanse as silver

_RESOLVED_IN = ("silver_events", "duplicate_events")
_REASON = re.compile(r"[a-z_0-9]+(:[A-Za-z][A-Za-z0-9_]*)?")
_MOST_NAMED = 10


@dataclass(frozen=True)
class Selection:
    """Which open records of the quarantine: of a reason (`wrong_type:value`, or `wrong_type` for every field), rejected in a time."""

    reason: str = ""
    begin: datetime | None = None
    end: datetime | None = None

    @classmethod
    def from_texts(cls, reason: str, from_time: str, until_time: str) -> "Selection":
        """Parameters as texts, empty for any. Raises `UsageError` naming the one that cannot be used."""
        reason = reason.strip()
        if reason and not _REASON.fullmatch(reason):
            raise UsageError(f"Parameter 'reason' is {reason!r}: give one as quarantined_events.reasons has it, such as wrong_type:value.")
        return cls(reason, *parse_period(from_time, until_time))

    def sql(self) -> str:
        """The rows of `quarantined_events`, as SQL writes a condition."""
        chosen = ["resolved_at IS NULL"]
        if self.reason:
            chosen.append(f"exists(reasons, r -> r = '{self.reason}' OR startswith(r, '{self.reason}:'))")
        if self.begin:
            chosen.append(f"quarantined_at >= TIMESTAMP'{self.begin.isoformat()}'")
        if self.end:
            chosen.append(f"quarantined_at < TIMESTAMP'{self.end.isoformat()}'")
        return " AND ".join(chosen)


def check_reason(reason: str, known: Collection[str]) -> None:
    """Raise `UsageError`, with what was probably meant, for a reason (`code:field`, or a code) that is none of those known."""
    codes = {one.partition(":")[0] for one in known}
    if reason in codes or reason in known:
        return
    near = get_close_matches(reason, sorted({*known, *codes}), 3, 0.5)
    there = f"the reasons there are: {', '.join(sorted(known)[:_MOST_NAMED])}." if known else "nothing was ever rejected."
    meant = f"did you mean {' or '.join(near)}?" if near else there
    raise UsageError(f"No record was rejected for {reason!r}: {meant}")


@dataclass(frozen=True)
class Replayed:
    """What became of the chosen records, or would become of them in a dry run: events, re-deliveries, still rejected."""

    records: int
    duplicates: int
    rejected: int
    dry_run: bool
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Why records are still rejected, and how many; a record may have several reasons."""
    steps: tuple[Step, ...] = field(default=(), repr=False, compare=False)

    @property
    def note(self) -> str:
        """The same in a sentence."""
        would = "would be " if self.dry_run else ""
        named = [f"{reason} {count:,}" for reason, count in list(self.reasons.items())[:_MOST_NAMED]]
        why = f" ({', '.join([*named, *(['…'] if len(self.reasons) > _MOST_NAMED else [])])})" if named else ""
        return f"{would}events {self.records:,}, {would}duplicates {self.duplicates:,}, still rejected {self.rejected:,}{why}"


def replay_quarantine(spark: SparkSession, settings: Settings, choice: Selection, dry_run: bool = False) -> Replayed:
    """Judge the chosen records by the contract as it is now; those that keep it become events of silver, or re-deliveries.

    Must not run beside the main job. A dry run writes nothing. Raises `UsageError` for a reason for which nothing was ever rejected.
    """
    contract = load_contract(settings.contract_path)
    check_patterns(spark, contract, settings.contract_path)
    tables.create_missing(spark, settings, tables.record_tables(contract))
    quarantined = spark.table(settings.table("quarantined_events"))
    chosen = quarantined.where(choice.sql())
    within = covering(chosen)
    if within is None:
        if choice.reason:
            check_reason(choice.reason, [row[0] for row in quarantined.select(F.explode("reasons")).distinct().collect()])
        return Replayed(0, 0, 0, dry_run)
    judged = silver.judged_again(leave_out_any(chosen, silver.placed(spark, settings, within, _RESOLVED_IN)), contract)
    batch = silver.extent(judged, contract)
    events = duplicates = 0
    if batch.valid:
        valid = judged.where("reasons IS NULL")
        repeats = silver.repeated(spark, settings, contract, valid, batch)
        if dry_run:
            duplicates = repeats.count()
            events = batch.valid - duplicates
        else:
            duplicates, events = silver.write_valid(settings, contract, valid, repeats, within)
    reasons = _reasons(judged) if batch.rejected else {}
    if not dry_run:
        _resolve(spark, settings, within)
    return Replayed(events, duplicates, batch.rejected, dry_run, reasons, collect_steps(settings.run_dir, silver.STEPS))


def _reasons(judged: DataFrame) -> dict[str, int]:
    """Reason → records that are rejected for it, the most frequent first."""
    counted = judged.select(F.explode("reasons").alias("reason")).groupBy("reason").count()
    return {row["reason"]: row["count"] for row in counted.orderBy(F.col("count").desc(), "reason").collect()}


def _resolve(spark: SparkSession, settings: Settings, within: Column) -> None:
    """Close the quarantine's open rows whose record is an event or a re-delivery by now."""
    silver.placed(spark, settings, within, _RESOLVED_IN).createOrReplaceTempView("placed_records")
    same = " AND ".join(f"held.`{name}` = placed_records.`{name}`" for name in KEY)
    spark.sql(
        f"MERGE INTO {settings.table('quarantined_events')} AS held USING placed_records ON {same} AND held.resolved_at IS NULL "
        "WHEN MATCHED THEN UPDATE SET resolved_at = current_timestamp()"
    )
    spark.catalog.dropTempView("placed_records")
