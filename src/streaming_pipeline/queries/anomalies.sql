SELECT date_trunc('HOUR', event_time) AS hour, anomaly_type, severity,
  count(DISTINCT coalesce(event_id, series)) AS incidents
FROM anomaly_logs
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
