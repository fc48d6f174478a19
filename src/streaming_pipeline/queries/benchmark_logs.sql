SELECT * FROM benchmark_logs ORDER BY run_time DESC
