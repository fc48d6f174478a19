SELECT * FROM monitor_logs ORDER BY run_time DESC
