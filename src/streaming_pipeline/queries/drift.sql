SELECT window_start, column_name, slice, metric, round(value, 3) AS value, threshold, severity
FROM drift_metrics
WHERE is_drift AND comparison <> 'previous'
ORDER BY window_start DESC, severity, column_name, slice
