SELECT round(coalesce(greatest(run_hours, event_hours), 9999), 1) AS hours_behind, round(run_hours, 1) AS hours_since_run,
  round(event_hours, 1) AS hours_since_event, newest.run_time AS newest_run, newest.latest_event_time AS newest_event, newest.status,
  newest.status_reason, newest.kafka_lag_records
FROM (
  SELECT newest, (unix_seconds(now()) - unix_seconds(newest.run_time)) / 3600 AS run_hours,
    (unix_seconds(now()) - unix_seconds(newest.latest_event_time)) / 3600 AS event_hours
  FROM (
    SELECT max(struct(run_time, latest_event_time, status, status_reason, kafka_lag_records)) AS newest
    FROM monitor_logs
    WHERE table_name = 'silver_events'
  )
)
