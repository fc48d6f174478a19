SELECT run_time, run_id, task, records, elapsed_seconds, records_per_second
FROM benchmark_logs
WHERE records > 0
ORDER BY run_time
