SELECT window_start, window_end, column_name, worst.drifts AS is_drift, worst.times AS times_threshold, worst.metric, worst.slice, worst.value,
  worst.threshold
FROM (
  SELECT window_start, max(window_end) AS window_end, column_name, max(struct(is_drift AS drifts, times, metric, slice, value, threshold)) AS worst
  FROM (
    SELECT *, coalesce(
      CASE WHEN metric = 'std_ratio' THEN greatest(value, try_divide(1, value)) ELSE abs(value) END / nullif(threshold, 0), 1) AS times
    FROM drift_metrics
    WHERE comparison <> 'previous' AND status <> 'unknown' AND (slice = '*' OR is_drift)
  )
  GROUP BY window_start, column_name
)
ORDER BY window_start, column_name
