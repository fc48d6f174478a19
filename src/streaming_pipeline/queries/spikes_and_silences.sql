SELECT anomaly_type, detector, slice, window_start, window_end, observed, round(expected, 1) AS expected, severity
FROM anomaly_logs
WHERE anomaly_type IN ('spike', 'missing_pattern')
ORDER BY window_start DESC, slice, detector
