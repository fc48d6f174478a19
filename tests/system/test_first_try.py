"""A new stream has few events: its stages end well, say what they wait for, and catch up."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from bronze_rows import append_to_bronze, event

from laptop.bundle.load import load_bundle
from laptop.run import prepare_mlflow
from streaming_pipeline.gold.registry import champion_version, versions
from streaming_pipeline.gold.score import Scored, score_silver_to_gold
from streaming_pipeline.gold.training import train
from streaming_pipeline.monitoring.monitor import monitor_silver_events
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver

ROOT = Path(__file__).parents[2]


def test_with_few_events_training_and_scoring_wait_and_gold_catches_up(spark, home, offline_settings):
    settings, now = offline_settings, datetime.now(UTC)
    prepare_mlflow(home, load_bundle(ROOT, local_home=home), {})
    payloads = [event(str(n), at=now - timedelta(seconds=n), value=str(n % 17)) for n in range(140)]
    append_to_bronze(spark, settings, [*payloads[:9], b"{"], kafka_timestamp=now)
    assert cleanse_bronze_to_silver(spark, settings).note == "9 events, 1 rejected, 0 repeated"
    few = train(spark, settings)
    assert (few.note, few.records, few.figures) == ("training needs 100 events, and there are 9; no event is scored until then", 0, {})
    assert few.summary.endswith(f"{settings.model_name}: {few.note}")
    assert versions(settings) == []
    assert score_silver_to_gold(spark, settings) == Scored(0, "no model is champion yet, so nothing is scored; 9 events wait")
    look = monitor_silver_events(spark, settings)
    assert (look.records, look.quarantined_events, look.status) == (9, 1, "Healthy")  # one of ten is no share yet

    append_to_bronze(spark, settings, payloads[9:], first_offset=10, kafka_timestamp=now)
    cleanse_bronze_to_silver(spark, settings)
    trained = train(spark, settings)
    assert (trained.version, trained.records, champion_version(settings)) == ("1", 140, "1")
    assert "version 1: 140 records" in trained.summary
    assert score_silver_to_gold(spark, settings) == Scored(140)

    # Where a champion is there already it stays one.
    spark.sql(f"DELETE FROM {settings.table('silver_events')} WHERE CAST(event_id AS INT) > 50")
    assert train(spark, settings).note == "training needs 100 events, and there are 51; version 1 stays champion"
