"""The topic read again from a time: `bronze_events` gets the records that it lacks, and none twice.

For records that bronze has lost (`lost_records`, rows deleted by mistake) and Kafka still holds. What the stream has not come to yet
is left to the stream.
"""

from collections.abc import Iterator
from datetime import datetime

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.bronze.ingest import Ingested, goes_on, held_until, to_bronze
from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.coordinates import leave_out, lies_in
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.rules import check_patterns
from streaming_pipeline.core.settings import SERVICE_CREDENTIAL, Settings
from streaming_pipeline.core.wording import plural
from streaming_pipeline.kafka import connection as kafka

Ranges = dict[int, tuple[int, int]]
"""Partition → first offset, and the one behind the last."""
_MOST_NAMED = 10
"""Partitions that a note names."""


def _plan(ranges: Ranges, since: datetime) -> str:
    """Which offsets a backfill would read, and how many records at most: some offsets may be markers of transactions."""
    to_read = {partition: (first, end) for partition, (first, end) in sorted(ranges.items()) if first < end}
    if not to_read:
        return f"bronze has read no record at or after {since.isoformat()}: there is nothing to read again"
    places = [f"partition {partition} from offset {first} to {end - 1}" for partition, (first, end) in to_read.items()]
    named = "; ".join(places[:_MOST_NAMED]) + (f"; and {len(places) - _MOST_NAMED} more" if len(places) > _MOST_NAMED else "")
    records = sum(end - first for first, end in to_read.values())
    return f"would read up to {plural(records, 'record')} ({named}) and add those that bronze lacks"


def portions(ranges: Ranges, records: int) -> Iterator[Ranges]:
    """Cut ranges into portions of at most `records` offsets in all (at least one of a partition), each partition's in order."""
    left = {partition: (first, end) for partition, (first, end) in ranges.items() if first < end}
    while left:
        share = max(1, records // len(left))
        portion = {partition: (first, min(first + share, end)) for partition, (first, end) in left.items()}
        yield portion
        left = {partition: (portion[partition][1], end) for partition, (_, end) in left.items() if portion[partition][1] < end}


def backfill_bronze(spark: SparkSession, settings: Settings, since: datetime, dry_run: bool = False) -> Ingested:
    """Read the topic from the first record at or after `since` to where the stream will go on; append what bronze lacks.

    In portions of `max_offsets_per_trigger`, each one commit. The next run of the main job takes the records on. A dry run reads no
    record and writes nothing: its note says which offsets would be read.
    """
    contract = load_contract(settings.contract_path)
    check_patterns(spark, contract, settings.contract_path)
    connection = settings.kafka
    topic = kafka.topic_offsets(connection, since=since)
    if not topic.ends:
        raise PipelineError(f"With {SERVICE_CREDENTIAL} Kafka cannot be asked for offsets, and without these there is no backfill.")
    topic_id = topic.info.topic_id
    if not dry_run:
        tables.create_missing(spark, settings, [tables.bronze_events(contract)])
    has_bronze = spark.catalog.tableExists(settings.table("bronze_events"))
    until = goes_on(settings, topic.info) or (held_until(spark, settings, topic_id) if has_bronze else {})
    if not until:
        return Ingested(0, f"bronze has read nothing of {topic.info.topic} yet: the main job reads all of it, and nothing is to be filled")
    ranges = {partition: (first, min(until.get(partition, 0), topic.ends[partition])) for partition, first in topic.beginnings.items()}
    if dry_run:
        return Ingested(0, _plan(ranges, since))
    added = 0
    for portion in portions(ranges, settings.max_offsets_per_trigger):
        records = spark.read.format("kafka").options(**kafka.range_options(connection, topic.info, portion)).load()
        held = spark.table(settings.table("bronze_events")).where(lies_in(topic_id, portion))
        lacking = leave_out(records.withColumn("topic_id", F.lit(topic_id)), held)
        added += tables.append(settings, "bronze_events", to_bronze(lacking, contract, topic_id))
    note = (
        f"added {plural(added, 'record')} that bronze lacked; the next run of the main job processes them" if added else "bronze lacks none"
    )
    return Ingested(added, note)
