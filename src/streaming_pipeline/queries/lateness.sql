SELECT date_trunc('HOUR', `timestamp`) AS hour, count(*) AS events,
  percentile_approx(unix_millis(kafka_timestamp) - unix_millis(`timestamp`), 0.5) / 1000 AS p50_seconds,
  percentile_approx(unix_millis(kafka_timestamp) - unix_millis(`timestamp`), 0.95) / 1000 AS p95_seconds,
  max(unix_millis(kafka_timestamp) - unix_millis(`timestamp`)) / 1000 AS most_seconds
FROM silver_events
GROUP BY 1
ORDER BY 1
