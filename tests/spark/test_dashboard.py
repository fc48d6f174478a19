"""The dashboard, the SQL alerts and the other places that show queries: well-formed, and of one set of queries.

That each query answers on the tables of a whole run is in test_pipeline.py.
"""

from dashboard import alerts, tells

from streaming_pipeline.core import tables


def test_the_sql_alerts_tell_when_there_is_something_to_tell_and_are_else_silent(spark, offline_settings):
    tables.create_missing(spark, offline_settings, [tables.MONITOR_LOGS, tables.ALERT_OUTBOX])
    spark.sql(f"USE `{offline_settings.schema}`")

    def told() -> set[str]:
        return {name for name, alert in alerts().items() if tells(spark, alert)}

    def look(run: str, event: str, unaccounted: str = "0", lost: str = "0") -> None:
        spark.sql(
            "INSERT INTO monitor_logs (run_time, table_name, latest_event_time, unaccounted_records, lost_records) "
            f"VALUES (now() - INTERVAL {run}, 'silver_events', now() - INTERVAL {event}, {unaccounted}, {lost})"
        )

    assert told() == {"stale"}, "no look was ever taken"
    look("8 HOURS", "8 HOURS")
    assert told() == {"stale"}, "the job is dead"
    look("50 MINUTES", "4 HOURS")
    assert told() == {"stale"}, "no event comes any more"
    look("40 MINUTES", "110 MINUTES")
    assert told() == set()
    # What befell bronze is a row of its own, and no look at the events.
    spark.sql("INSERT INTO monitor_logs (run_time, table_name, lost_records) VALUES (now(), 'bronze_events', 7)")
    assert told() == set()
    look("30 MINUTES", "30 MINUTES", unaccounted="2")
    assert told() == {"missing_records"}
    look("20 MINUTES", "20 MINUTES", lost="1")
    assert told() == {"missing_records"}
    look("10 MINUTES", "10 MINUTES", lost="NULL")
    assert told() == {"missing_records"}, "Kafka was not asked, which mends nothing"
    look("0 MINUTES", "0 MINUTES")
    assert told() == set()
    spark.sql("INSERT INTO alert_outbox (alert_id, status, created_at) VALUES ('a', 'SENT', now()), ('b', 'PENDING', now())")
    assert told() == set()
    spark.sql("INSERT INTO alert_outbox (alert_id, status, created_at) VALUES ('c', 'DEAD', now())")
    assert told() == {"dead_alerts"}
