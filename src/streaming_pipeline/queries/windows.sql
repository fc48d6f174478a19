SELECT window_start, column_name, sum(records) AS records, sum(nulls) AS nulls,
  try_divide(sum(avg * (records - nulls)), sum(records - nulls)) AS mean, min(min) AS least, max_by(quantiles, records)['p05'] AS p05, max_by(quantiles, records)['p50'] AS p50,
  max_by(quantiles, records)['p95'] AS p95, max(max) AS most
FROM profile_metrics
WHERE slice = '*'
GROUP BY window_start, column_name
ORDER BY window_start, column_name
