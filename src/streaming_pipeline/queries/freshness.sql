SELECT run_time, records, late_events, freshness_seconds, expected_freshness_seconds, lateness_p50_seconds, lateness_p95_seconds,
  lateness_p99_seconds, kafka_lag_records, unaccounted_records, lost_records, status, status_reason
FROM monitor_logs
WHERE table_name = 'silver_events'
ORDER BY run_time
