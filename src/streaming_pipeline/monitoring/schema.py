"""Do payloads still have the fields that the contract knows? Added, removed and retyped fields."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from streaming_pipeline.core.contract import Contract
from streaming_pipeline.core.rules import json_type, payload_text
from streaming_pipeline.monitoring.baseline import MIN_RECORDS
from streaming_pipeline.monitoring.drift import Drift
from streaming_pipeline.monitoring.profile import ALL
from streaming_pipeline.monitoring.windows import nameable, number_of, window_of

MOST = 50
"""So many names are told at most: a producer that makes names of values must not fill the log."""
MIN_ADDED = 3
"""So many records make a new field; fewer are somebody's slip."""
MIN_REJECTED = 20
SHARE, TIMES_USUAL = 10.0, 5.0
"""A field is removed or retyped where so many per cent of a window's records are rejected for it, and so many times the usual."""
_METRIC_OF = {"missing": "schema_removed", "wrong_type": "schema_retyped"}


@dataclass(frozen=True)
class UnknownField:
    """A field that the contract lacks: how many records have it, and when the first of them came."""

    name: str
    records: int
    first_at: datetime


@dataclass(eq=False)
class Known:
    """What is remembered of payloads: records of each field that the contract lacks, and how often a reason to reject is usual."""

    fields: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    records: int = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> "Known":
        """What `to_json` wrote."""
        fields, reasons = ({name: int(count) for name, count in held[kind].items()} for kind in ("fields", "reasons"))
        return cls(fields, reasons, int(held["records"]))


def unknown_fields(bronze: DataFrame) -> list[UnknownField]:
    """The fields of bronze rows that the contract lacks, the most frequent first."""
    names = bronze.where("unknown_fields IS NOT NULL").select(
        F.explode("unknown_fields").alias("name"), nameable("kafka_timestamp").alias("arrived")
    )
    counted = names.groupBy("name").agg(F.count(F.lit(1)).alias("records"), F.min("arrived").alias("first_at"))
    return [UnknownField(*row) for row in counted.orderBy(F.col("records").desc(), "name").limit(MOST).collect()]


def rejections(quarantined: DataFrame, window_minutes: int) -> dict[tuple[int, str], int]:
    """(window of arrival, reason) → rejected records; the reason * stands for any."""
    window = window_of("kafka_timestamp", window_minutes).alias("window")
    reasons = quarantined.select(window, F.explode(F.array_append(F.array_distinct("reasons"), F.lit(ALL))).alias("reason"))
    return {(row["window"], row["reason"]): row["count"] for row in reasons.groupBy("window", "reason").count().collect()}


def retyped(quarantined: DataFrame, contract: Contract, rejected: Mapping[tuple[int, str], int]) -> dict[str, str]:
    """Field → its type by the contract and the JSON type that it mostly has instead, for fields that many records are rejected for.

    Such as `number by the contract, now string such as "n/a"`. Control characters of the value are escaped.
    """
    wanted = {field.name: field.logical_type for field in contract.fields}
    many = {reason for (_, reason), count in rejected.items() if count >= MIN_REJECTED}
    names = [name for name in wanted if f"wrong_type:{name}" in many]
    if not names:
        return {}
    seen = []
    for name in names:
        kind, example = json_type(payload_text(), name), F.from_json(payload_text(), f"`{name}` string")[name]
        found = F.struct(F.lit(name).alias("name"), kind.alias("kind"), F.left(example, F.lit(40)).alias("example"))
        seen.append(F.when(F.array_contains("reasons", f"wrong_type:{name}"), found))
    values = quarantined.select(F.explode(F.array_compact(F.array(*seen))).alias("seen")).where("seen.kind IS NOT NULL")
    counted = values.groupBy("seen.name", "seen.kind").agg(F.count(F.lit(1)).alias("records"), F.min("seen.example").alias("example"))
    out: dict[str, str] = {}
    for row in counted.orderBy(F.col("records").desc(), "kind").collect():
        out.setdefault(row["name"], f"{wanted[row['name']]} by the contract, now {row['kind']} such as {json.dumps(row['example'])}")
    return out


def changes(
    known: Known,
    unknown: Sequence[UnknownField],
    rejected: Mapping[tuple[int, str], int],
    valid: Mapping[int, int],
    window_minutes: int,
    types: Mapping[str, str] | None = None,
) -> list[Drift]:
    """What changed in the new records, of which `valid` has the number of valid ones by window of arrival; `known` learns it.

    `types` says of retyped fields from which type to which, as `retyped` has it.
    """
    found = []
    total = sum(valid.values()) + sum(count for (_, reason), count in rejected.items() if reason == ALL)
    for one in unknown:
        before = known.fields.get(one.name, 0)
        known.fields[one.name] = before + one.records
        if before < MIN_ADDED <= known.fields[one.name]:
            window = number_of(one.first_at, window_minutes)
            share = 100 * min(1.0, one.records / max(total, one.records))
            found.append(Drift(window, ALL, one.name, "contract", "schema_added", share, None, 0.0, one.records, 0, True, "warning"))
    for (window, reason), count in sorted(rejected.items()):
        kind, _, name = reason.partition(":")
        if kind not in _METRIC_OF or not name:
            continue
        records = valid.get(window, 0) + rejected[window, ALL]
        share = 100 * count / records
        usual = 100 * known.reasons.get(reason, 0) / max(known.records, 1)
        if records >= MIN_RECORDS and count >= MIN_REJECTED and share >= max(SHARE, TIMES_USUAL * usual):
            metric = _METRIC_OF[kind]
            detail = (types or {}).get(name) if metric == "schema_retyped" else None
            found.append(
                Drift(window, ALL, name, "contract", metric, share, None, SHARE, records, known.records, True, "critical", detail=detail)
            )
        else:
            known.reasons[reason] = known.reasons.get(reason, 0) + count
    known.records += total
    return found
