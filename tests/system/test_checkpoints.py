"""A checkpoint that is damaged, older than its table or ahead of it: nothing is lost, nothing comes twice, and it is said."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import checkpoints
import pytest
from bronze_rows import append_to_bronze, event
from kafka_records import put, send
from pyspark.sql import functions as F

from laptop.bundle.load import load_bundle
from laptop.run import prepare_mlflow
from streaming_pipeline.bronze.backfill import backfill_bronze
from streaming_pipeline.bronze.ingest import beginning, bronze_checkpoint, starting_offsets, stream_kafka_to_bronze
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.streams import DamagedCheckpoint, progress
from streaming_pipeline.kafka import connection as kafka
from streaming_pipeline.kafka.connection import topic_offsets
from streaming_pipeline.monitoring.monitor import monitor_silver_events
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver

ROOT = Path(__file__).parents[2]


def checkpoint_of_bronze(settings):
    return Path(bronze_checkpoint(settings, topic_offsets(settings.kafka).info))


def newest(checkpoint, kind, count=1):
    return sorted((checkpoint / kind).glob("[0-9]*"), key=lambda file: int(file.name))[-count:]


def offsets_held(spark, settings):
    return sorted(tuple(row) for row in spark.table(settings.table("bronze_events")).select("partition", "offset").collect())


def each_once(settings):
    return sorted((partition, offset) for partition, end in topic_offsets(settings.kafka).ends.items() for offset in range(end))


def look_at(spark, settings):
    """(lost, unaccounted, waiting) as monitoring tells them."""
    look = monitor_silver_events(spark, settings)
    return look.lost_records, look.unaccounted_records, look.kafka_lag_records


@pytest.mark.parametrize("batches", [1, 3])
def test_bronze_goes_on_from_its_table_where_the_checkpoint_is_some_batches_older(spark, settings, batches):
    for count in (30, 9, 9, 9):
        send(settings, count)
        stream_kafka_to_bronze(spark, settings)
    for kind in ("offsets", "commits"):
        for file in newest(checkpoint_of_bronze(settings), kind, batches):
            checkpoints.remove(file, with_checksum=True)
    send(settings, 15)
    ingested = stream_kafka_to_bronze(spark, settings)
    assert (ingested.records, "the checkpoint was older than bronze" in ingested.note) == (15, True)
    cleanse_bronze_to_silver(spark, settings)
    assert look_at(spark, settings) == (0, 0, 0)
    assert offsets_held(spark, settings) == each_once(settings)
    assert stream_kafka_to_bronze(spark, settings).note == ""


def test_a_batch_whose_end_was_not_put_down_comes_once_also_where_metadata_is_gone(spark, settings):
    send(settings, 30)
    stream_kafka_to_bronze(spark, settings)
    checkpoint = checkpoint_of_bronze(settings)
    for file in (*newest(checkpoint, "commits"), checkpoint / "metadata"):
        checkpoints.remove(file, with_checksum=True)
    send(settings, 6)
    ingested = stream_kafka_to_bronze(spark, settings)
    assert (ingested.records, f"file {checkpoint}/metadata was missing or damaged" in ingested.note) == (6, True)
    assert offsets_held(spark, settings) == each_once(settings)


def test_a_table_and_a_checkpoint_that_were_put_back_together_go_on_together(spark, settings, tmp_path):
    send(settings, 30)
    stream_kafka_to_bronze(spark, settings)
    checkpoint, bronze = checkpoint_of_bronze(settings), settings.table("bronze_events")
    shutil.copytree(checkpoint, tmp_path / "copy")
    version = spark.sql(f"DESCRIBE HISTORY {bronze} LIMIT 1").first()["version"]
    send(settings, 9)
    stream_kafka_to_bronze(spark, settings)
    # Delta keeps in mind which batches it has seen, also of a table that is put back.
    shutil.rmtree(checkpoint)
    shutil.copytree(tmp_path / "copy", checkpoint)
    spark.sql(f"RESTORE TABLE {bronze} TO VERSION AS OF {version}")
    send(settings, 6)
    assert stream_kafka_to_bronze(spark, settings).records == 15
    assert offsets_held(spark, settings) == each_once(settings)


def test_rows_that_bronze_had_and_has_no_more_are_a_loss_of_the_same_run_until_a_backfill_brings_them_back(spark, settings):
    send(settings, 30)
    stream_kafka_to_bronze(spark, settings)
    bronze = settings.table("bronze_events")
    version = spark.sql(f"DESCRIBE HISTORY {bronze} LIMIT 1").first()["version"]
    cleanse_bronze_to_silver(spark, settings)
    assert look_at(spark, settings) == (0, 0, 0)
    send(settings, 9)
    stream_kafka_to_bronze(spark, settings)
    spark.sql(f"RESTORE TABLE {bronze} TO VERSION AS OF {version}")
    # Kafka's end, the checkpoint's place and bronze's rows are three figures.
    assert look_at(spark, settings) == (9, 0, 0)
    ingested = stream_kafka_to_bronze(spark, settings)
    assert ingested.records == 0 and "bronze has lost records that it had: 3 of partition 0 from offset 10 to 12; 3 of" in ingested.note
    assert stream_kafka_to_bronze(spark, settings).note == ingested.note
    told = spark.table(settings.table("monitor_logs")).where("table_name = 'bronze_events'").collect()
    assert [(row["status"], row["lost_records"], row["status_reason"]) for row in told] == [("Unhealthy", 9, ingested.note)]
    assert backfill_bronze(spark, settings, told[0]["run_time"].replace(year=2020)).records == 9
    assert stream_kafka_to_bronze(spark, settings).note == ""
    cleanse_bronze_to_silver(spark, settings)
    assert look_at(spark, settings) == (0, 0, 0)
    assert offsets_held(spark, settings) == each_once(settings)


def test_a_record_that_is_there_twice_hides_no_loss(spark, settings):
    send(settings, 30)
    stream_kafka_to_bronze(spark, settings)
    bronze = spark.table(settings.table("bronze_events"))
    bronze.where("partition = 0 AND offset = 7").withColumn("offset", F.col("offset")).write.format("delta").mode("append").saveAsTable(
        settings.table("bronze_events")
    )
    spark.sql(f"DELETE FROM {settings.table('bronze_events')} WHERE partition = 0 AND offset = 4")
    cleanse_bronze_to_silver(spark, settings)
    lost, unaccounted, _ = look_at(spark, settings)
    assert (lost, unaccounted) == (1, 1)


def test_silver_reads_all_again_where_bronze_was_put_back_to_an_earlier_state(spark, offline_settings, home):
    settings, log = offline_settings, home / "warehouse" / f"{offline_settings.schema}.db" / "bronze_events" / "_delta_log"
    append_to_bronze(spark, settings, [event("a")])
    cleanse_bronze_to_silver(spark, settings)
    for offset in (1, 2):
        append_to_bronze(spark, settings, [event(f"b{offset}")], first_offset=offset)
    cleanse_bronze_to_silver(spark, settings)
    # A backup of the table's folder, two commits old.
    for file in sorted(log.glob("*.json"))[-2:]:
        checkpoints.remove(file, with_checksum=True)
        (log / f"{file.stem}.crc").unlink(missing_ok=True)
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    append_to_bronze(spark, settings, [event("c")], first_offset=3)
    counts = cleanse_bronze_to_silver(spark, settings)
    assert counts.records == 1 and "was put back to an earlier state: all was read again" in counts.note
    assert spark.table(settings.table("silver_events")).count() == 4  # what bronze has no more stays


def test_silver_reads_all_again_where_bronzes_log_no_longer_reaches_back_to_its_checkpoint(spark, offline_settings, home, tmp_path):
    settings, log = offline_settings, home / "warehouse" / f"{offline_settings.schema}.db" / "bronze_events" / "_delta_log"
    append_to_bronze(spark, settings, [event("a")])
    spark.sql(f"ALTER TABLE {settings.table('bronze_events')} SET TBLPROPERTIES ('delta.checkpointInterval' = '1')")
    cleanse_bronze_to_silver(spark, settings)
    checkpoint = settings.checkpoint("silver")
    shutil.copytree(checkpoint, tmp_path / "copy")
    for offset in (1, 2, 3):
        append_to_bronze(spark, settings, [event(f"b{offset}")], first_offset=offset)
        cleanse_bronze_to_silver(spark, settings)
    newest_state = max(int(file.name.split(".")[0]) for file in log.glob("*.checkpoint*.parquet"))
    for file in log.glob("*.json"):
        if int(file.stem) < newest_state:
            checkpoints.remove(file, with_checksum=True)
    shutil.rmtree(checkpoint)
    shutil.copytree(tmp_path / "copy", checkpoint)
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    append_to_bronze(spark, settings, [event("c")], first_offset=4)
    counts = cleanse_bronze_to_silver(spark, settings)
    assert counts.records == 1 and "no longer reaches back so far: all was read again" in counts.note
    assert spark.table(settings.table("silver_events")).count() == 5


def test_without_an_answer_from_kafka_an_older_checkpoint_goes_on_and_a_missing_one_is_refused(spark, settings):
    for count in (30, 9):
        send(settings, count)
        stream_kafka_to_bronze(spark, settings)
    known = topic_offsets(settings.kafka)
    unknown = kafka.TopicOffsets(replace(known.info, partitions=()), {}, {})  # as with a service credential
    checkpoint = checkpoint_of_bronze(settings)
    for kind in ("offsets", "commits"):
        checkpoints.remove(newest(checkpoint, kind)[0], with_checksum=True)
    begin = beginning(spark, settings, unknown)
    assert begin.is_anew and json.loads(starting_offsets(unknown, begin.offsets)) == {
        settings.kafka_topic: {str(partition): end for partition, end in known.ends.items()}
    }
    shutil.rmtree(checkpoint)
    with pytest.raises(PipelineError, match=r"checkpoint of bronze is gone or damaged.*databricks.serviceCredential"):
        beginning(spark, settings, unknown)


def test_a_restored_table_lacks_records_also_of_partitions_that_the_last_batch_had_none_of(spark, settings):
    for partitions in ((0, 1), (0, 1), (0,)):
        put(settings, [partition for partition in partitions for _ in range(5)])
        stream_kafka_to_bronze(spark, settings)
    versions = spark.sql(f"DESCRIBE HISTORY {settings.table('bronze_events')}").where("operation = 'WRITE'").orderBy("version").collect()
    spark.sql(f"RESTORE TABLE {settings.table('bronze_events')} TO VERSION AS OF {versions[0]['version']}")
    assert beginning(spark, settings, topic_offsets(settings.kafka)).taken_back == {0: (5, 15), 1: (5, 10)}
    assert "10 of partition 0 from offset 5 to 14; 5 of partition 1 from offset 5 to 9" in stream_kafka_to_bronze(spark, settings).note


def test_a_checkpoint_whose_file_was_changed_is_left_in_the_same_run(spark, settings):
    send(settings, 9)
    stream_kafka_to_bronze(spark, settings)
    [offsets] = newest(checkpoint_of_bronze(settings), "offsets")
    offsets.write_text(offsets.read_text().replace('"batchTimestampMs":1', '"batchTimestampMs":2'))
    send(settings, 6)
    ingested = stream_kafka_to_bronze(spark, settings)
    assert ingested.records == 6 and "a file of its checkpoint was changed" in ingested.note
    assert offsets_held(spark, settings) == each_once(settings)


def test_a_checkpoint_that_is_ahead_of_kafka_and_bronze_is_not_taken_for_kafkas_fault(spark, settings):
    send(settings, 9)
    stream_kafka_to_bronze(spark, settings)
    [offsets] = newest(checkpoint_of_bronze(settings), "offsets")
    offsets.with_name(f".{offsets.name}.crc").unlink()
    offsets.write_text(offsets.read_text().replace('"0":3', '"0":30'))
    with pytest.raises(PipelineError, match=r"partition 0 ends at offset 3, .* the checkpoint has 30, and is wrong. Remove its folder"):
        stream_kafka_to_bronze(spark, settings)
    shutil.rmtree(checkpoint_of_bronze(settings))
    send(settings, 6)
    assert stream_kafka_to_bronze(spark, settings).records == 6


def test_a_checkpoint_names_the_file_that_is_missing(tmp_path):
    def files(**contents):
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        for name, text in {"metadata": '{"id": "x"}', **contents}.items():
            file = tmp_path / "c" / name.replace("_", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return str(tmp_path / "c")

    offset, commit = 'v1\n{}\n{"t": {"0": 5}}', 'v1\n{"nextBatchWatermarkMs": 0}'
    assert progress(files()) is None
    planned = progress(files(offsets_0=offset, sources_0_0='v1\n{"t": {"0": 2}}'))
    assert (planned.batch, planned.kafka_offsets()) == (None, {0: 2})
    done = progress(files(offsets_0=offset, commits_0=commit))
    assert (done.batch, done.kafka_offsets()) == (0, {0: 5})
    for broken, named in (
        ({"offsets_0": offset, "commits_0": commit, "metadata": ""}, "metadata"),
        ({"offsets_0": "", "commits_0": commit}, "offsets/0"),
        ({"offsets_0": offset, "commits_0": ""}, "commits/0"),
        ({"offsets_0": offset, "offsets_1": "v1\n[]", "commits_0": commit}, "offsets/1"),
        ({"offsets_0": offset, "offsets_2": offset, "commits_0": commit}, "commits/1"),
        ({"offsets_1": offset}, "commits/0"),
        ({"offsets_1": offset, "commits_2": commit}, "offsets/2"),
        ({"commits_0": commit}, "offsets/0"),
        ({"offsets_0": 'v1\n{"batchWatermarkMs": 0, "conf": {}}', "commits_0": commit}, "offsets/0"),
        ({"offsets_0": "v1\n{}\n{}", "commits_0": commit}, "offsets/0"),
        ({"offsets_0": "", "offsets_1": offset, "commits_0": commit, "commits_1": commit}, "offsets/0"),
        ({"offsets_1": offset, "commits_1": commit}, "offsets/0"),
        ({"offsets_0": 'v1\nnonsense\n{"reservoirVersion": 1}', "commits_0": commit}, "offsets/0"),
        ({"offsets_0": offset, "commits_0": "v1\n" + "[" * 100_000}, "commits/0"),
    ):
        with pytest.raises(DamagedCheckpoint, match=rf"file {tmp_path}/c/{named} was missing or damaged"):
            progress(files(**broken))
    with pytest.raises(PipelineError, match="sources/0/0"):
        progress(files(offsets_0=offset)).kafka_offsets()
    for wrong in (
        '{"t": 5}',
        '{"t": {}}',
        '{"t": {"0": -1}}',
        '{"t": {"0": 1.5}}',
        '{"t": {"0": "x"}}',
        '{"t": {"0": 1e999}}',
        '{"t": null}',
    ):
        with pytest.raises(DamagedCheckpoint, match="offsets/0"):
            progress(files(offsets_0=f"v1\n{{}}\n{wrong}", commits_0=commit)).kafka_offsets()


def test_whatever_is_missing_damaged_or_older_nothing_is_lost_and_nothing_comes_twice(spark, settings, home, tmp_path):
    """Some cases of benchmarks/checkpoints.py."""
    prepare_mlflow(home, load_bundle(ROOT, local_home=home), {})
    cases = checkpoints.begin(spark, settings, tmp_path / "copies")
    for seed in range(2):
        cases.case(seed)
    assert {stage for stage, outcome in cases.outcomes if outcome == "went on"}
