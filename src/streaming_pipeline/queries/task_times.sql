SELECT min(start_time) OVER (PARTITION BY run_id, CASE WHEN run_id = 'by-hand' THEN start_time END) AS run_started, task_name, start_time,
  (unix_millis(end_time) - unix_millis(start_time)) / 1000 AS seconds, cluster_name, notes, run_id
FROM cluster_logs
ORDER BY start_time DESC
