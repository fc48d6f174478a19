"""A loss is recorded once, and another one in the same words is another one."""

from datetime import UTC, datetime

from streaming_pipeline.bronze.losses import record_taken_back
from streaming_pipeline.core import tables
from streaming_pipeline.kafka.connection import TopicInfo, TopicOffsets


def test_a_loss_is_recorded_once_for_all_attempts_and_again_when_it_comes_again_behind_a_look(spark, offline_settings):
    unasked = TopicOffsets(TopicInfo("events", "topic-a", (0,)), beginnings={}, ends={})  # Kafka cannot be asked

    def recorded() -> list[int]:
        assert "bronze has lost records that it had: 4 of partition 0" in record_taken_back(spark, offline_settings, unasked, {0: (5, 9)})
        rows = spark.table(offline_settings.table("monitor_logs")).where("table_name = 'bronze_events'").orderBy("run_time").collect()
        assert all(row["status"] == "Unhealthy" for row in rows)
        return [row["lost_records"] for row in rows]

    assert recorded() == [4]
    assert recorded() == [4]  # a second attempt of the same run
    look = {"run_time": datetime.now(UTC), "table_name": "silver_events", "status": "Healthy"}
    tables.append_rows(spark, offline_settings, tables.MONITOR_LOGS, [look])
    assert recorded() == [4, 4]
    assert recorded() == [4, 4]
