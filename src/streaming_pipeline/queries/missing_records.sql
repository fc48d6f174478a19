SELECT coalesce(unaccounted_records, 0) + coalesce(lost_records, 0) AS missing_records, unaccounted_records, lost_records, newest_run
FROM (
  SELECT max(run_time) AS newest_run, max_by(unaccounted_records, run_time) AS unaccounted_records,
    max_by(lost_records, run_time) FILTER (WHERE lost_records IS NOT NULL) AS lost_records
  FROM monitor_logs
  WHERE table_name = 'silver_events'
)
