SELECT event_id, event_time, series, any_value(observed) AS observed, round(any_value(expected), 1) AS expected, count(*) AS detectors
FROM anomaly_logs
WHERE event_id IS NOT NULL
GROUP BY event_id, event_time, series
ORDER BY detectors DESC, event_time DESC
