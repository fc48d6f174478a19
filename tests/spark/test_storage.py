"""Folders that cannot be written are named in a sentence, and no table holds half of anything."""

import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from bronze_rows import append_to_bronze, event

from laptop.continuous import shorten_logs
from laptop.services.spark import new_session
from streaming_pipeline.core import tables
from streaming_pipeline.core.at_once import at_once
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.run_log import log_task
from streaming_pipeline.tasks import TASKS, Context


@pytest.mark.parametrize("folder", ["checkpoint_dir", "runs_dir"])
def test_a_folder_that_cannot_be_written_is_named_and_the_next_run_goes_on(spark, offline_settings, tmp_path, folder):
    append_to_bronze(spark, offline_settings, [event("a"), event("a"), b"{"])
    in_the_way = tmp_path / "in the way"
    in_the_way.write_text("a file")

    def cleanse(settings):
        task = TASKS["02_bronze_to_silver_cleanse"]
        return log_task(task.name, lambda: task.call(Context(spark, settings, {}, dict)), spark, settings).value

    with pytest.raises(PipelineError) as refused:
        cleanse(replace(offline_settings, **{folder: str(in_the_way)}))
    said = str(refused.value)
    assert str(in_the_way) in said and "\n" not in said and "run again" in said
    assert spark.table(offline_settings.table("silver_events")).count() == 0
    counts = cleanse(offline_settings)
    assert (counts.records, counts.duplicates, counts.quarantined) == (1, 1, 1)


def test_commits_of_several_sessions_at_once_are_all_kept(spark, offline_settings):
    """Delta's store of the log on a laptop relies on one process that writes, not on one thread."""
    tables.create_missing(spark, offline_settings, [tables.BENCHMARK_LOGS])

    def write(name: str) -> None:
        session = new_session(spark)
        for number in range(8):
            row = {"run_time": datetime.now(UTC), "task": f"{name}{number}", "elapsed_seconds": 1.0, "run_id": "r"}
            tables.append_rows(session, offline_settings, tables.BENCHMARK_LOGS, [row])

    at_once(*(partial(write, name) for name in "abc"))
    held = spark.table(offline_settings.table("benchmark_logs"))
    assert sorted(row["task"] for row in held.collect()) == [f"{name}{number}" for name in "abc" for number in range(8)]
    assert spark.sql(f"DESCRIBE HISTORY {offline_settings.table('benchmark_logs')}").where("operation = 'WRITE'").count() == 24


def test_logs_that_grow_with_each_run_are_shortened_but_those_of_silver_and_gold(spark, offline_settings, home):
    every = [tables.MONITOR_STATE, tables.silver_events(load_contract(offline_settings.contract_path))]
    tables.create_missing(spark, offline_settings, every)
    rows = [{"look": look, "detector": "values", "slice": "", "state": "{}", "updated_at": datetime.now(UTC)} for look in range(12)]
    for table in every:
        spark.sql(f"ALTER TABLE {offline_settings.table(table.name)} SET TBLPROPERTIES ('delta.checkpointInterval' = '5')")
    for row in rows:
        tables.append_rows(spark, offline_settings, tables.MONITOR_STATE, [row])
        spark.sql(f"ALTER TABLE {offline_settings.table('silver_events')} SET TBLPROPERTIES ('number' = '{row['look']}')")
    logs = {table.name: Path(home, "warehouse", f"{offline_settings.schema}.db", table.name, "_delta_log") for table in every}
    commits = lambda name: sorted(path.name for path in logs[name].glob("*.json"))  # noqa: E731
    before = {name: commits(name) for name in logs}
    now = time.time()
    for log in logs.values():
        for place, path in enumerate(sorted(log.glob("*.*"))):
            os.utime(path, (now, now - 7_200 + place))
    shorten_logs(new_session(spark), offline_settings)
    assert commits("silver_events") == before["silver_events"] and list(logs["silver_events"].glob("*.checkpoint.parquet"))
    # Those behind the newest checkpoint.
    assert commits("monitor_state") == before["monitor_state"][-len(commits("monitor_state")) :] and 0 < len(commits("monitor_state")) < 6
    # Whoever reads it from scratch has all rows, and the next commit is one more.
    session = new_session(spark)
    session._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    tables.append_rows(session, offline_settings, tables.MONITOR_STATE, [{**rows[0], "look": 12}])
    held = session.table(offline_settings.table("monitor_state")).collect()
    assert sorted(row["look"] for row in held) == list(range(13))
