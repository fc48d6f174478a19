"""A table whose files are damaged or gone: a sentence names table, file and cure, and no page of Java's stack does."""

import os
from pathlib import Path

import pytest
from bronze_rows import append_to_bronze, event

from laptop.jobs.dbutils import DBUtils
from laptop.jobs.notebook import run_notebook
from laptop.jobs.notebook_source import HEADER
from laptop.services.spark import register_tables
from laptop.sql import run_query
from streaming_pipeline.core.errors import PipelineError, damaged_table
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver

CURE = 'docs/runbook.md says how, under "What a damaged table means".'


@pytest.fixture
def table(spark, tmp_path):
    """A table of three commits in a home of its own, whose path wants escapes."""
    folder = tmp_path / "my homé" / "warehouse" / "s.db" / "some_events"
    for first in range(3):
        spark.range(first, first + 1, 1, 1).write.format("delta").mode("append").save(str(folder))
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    yield folder
    spark.sql("DROP SCHEMA IF EXISTS s CASCADE")


def file_of(folder, name):
    """A commit by its number, or the table's first data file."""
    return sorted(folder.glob("*.parquet"))[0] if name == "data" else folder / "_delta_log" / f"{name:020}.json"


def cut(file):
    file.write_bytes(file.read_bytes()[:300])


def fill_with_garbage(file):
    file.write_bytes(os.urandom(500))


@pytest.mark.parametrize("damage", [cut, fill_with_garbage, os.unlink])
@pytest.mark.parametrize("name", ["data", 0, 2])
def test_whatever_is_damaged_a_query_names_table_file_and_cure(spark, table, name, damage):
    if (name, damage) == (2, os.unlink):
        pytest.skip("without its newest commit a table is as it was before that, which monitoring sees")
    damage(file := file_of(table, name))
    with pytest.raises(PipelineError) as told:
        run_query(table.parents[2], "SELECT sum(id) FROM some_events", "s")
    assert str(told.value).startswith(f"Table s.some_events is damaged: {file} is missing or cannot be read. ")
    assert str(told.value).endswith(CURE)


def test_a_log_with_a_gap_is_named_where_the_tables_are_registered(spark, table):
    file_of(table, 1).unlink()
    with pytest.raises(PipelineError) as told:
        register_tables(spark, table.parents[2])
    log = table / "_delta_log"
    assert str(told.value).startswith(f"Table s.some_events is damaged: {log} cannot be read (Versions (0, 2) are not contiguous). ")


def test_a_task_that_meets_a_damaged_table_fails_by_that_sentence_and_is_not_tried_again(spark, table, tmp_path):
    register_tables(spark, table.parents[2])
    cut(file_of(table, 2))
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    notebook = tmp_path / "look.py"
    notebook.write_text(f"{HEADER}\nspark.table('s.some_events').toArrow()\n")
    dbutils = DBUtils(parameters={}, task_key="look", task_values={}, secrets={})
    error = run_notebook(notebook, spark=spark, dbutils=dbutils, html=tmp_path / "look.html").error
    assert error.users_mistake and error.details.startswith("Table s.some_events is damaged: ") and error.details.endswith(CURE)


def test_a_file_that_is_gone_from_the_table_that_a_stream_fills_is_not_taken_for_its_checkpoints_fault(spark, offline_settings, home):
    append_to_bronze(spark, offline_settings, [event("1"), event("3")])
    cleanse_bronze_to_silver(spark, offline_settings)
    [file] = (home / "warehouse" / f"{offline_settings.schema}.db" / "silver_events").glob("event_date=*/*.parquet")
    kept, checkpoint = file.read_bytes(), Path(offline_settings.checkpoint("silver"))
    file.unlink()
    # By the statistics of the file this event may be in it.
    append_to_bronze(spark, offline_settings, [event("2")], first_offset=2)
    with pytest.raises(PipelineError) as told:
        cleanse_bronze_to_silver(spark, offline_settings)
    assert str(told.value).startswith(f"Table {offline_settings.schema}.silver_events is damaged: {file} is missing or cannot be read. ")
    # The checkpoint stays: once the file is back, nothing is read again.
    assert [one.name for one in checkpoint.parent.iterdir()] == [checkpoint.name]
    file.write_bytes(kept)
    counts = cleanse_bronze_to_silver(spark, offline_settings)
    assert (counts.records, counts.note) == (1, "1 event, 0 rejected, 0 repeated")


def test_other_errors_are_told_as_they_are():
    assert damaged_table(ValueError("Checksum error: file:/x/checkpoints/streaming/silver/offsets/0 at 0 exp: 1 got: 2")) is None
    assert damaged_table(ValueError("Encountered error while reading file file:/x/a.parquet. ")) is None
