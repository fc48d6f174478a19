SELECT round(coalesce(greatest(look_hours, event_hours), 9999), 1) AS hours_behind, round(look_hours, 1) AS hours_since_look,
  round(event_hours, 1) AS hours_since_event, newest.run_time AS newest_look, newest.latest_event_time AS newest_event, newest.status,
  newest.status_reason, newest.kafka_lag_records
FROM (
  SELECT newest, (unix_seconds(now()) - unix_seconds(newest.run_time)) / 3600 AS look_hours,
    (unix_seconds(now()) - unix_seconds(newest.latest_event_time)) / 3600 AS event_hours
  FROM (
    SELECT max(struct(run_time, latest_event_time, status, status_reason, kafka_lag_records)) AS newest
    FROM monitor_logs
    WHERE table_name = 'silver_events'
  )
)
