SELECT run_id, min(started) AS started, sum(seconds) AS seconds, max_by(node_type, seconds) AS node_type, max(workers) AS workers,
  round(sum(price_per_hour * seconds / 3600), 4) AS cost, max(currency) AS currency
FROM (
  -- A cluster costs from its first task to its last one, however many run at once. What is run by hand has no run of its own.
  SELECT run_id, cluster_name, min(start_time) AS started, (unix_micros(max(end_time)) - unix_micros(min(start_time))) / 1e6 AS seconds,
    max(node_type) AS node_type, max(workers) AS workers, max(price_per_hour) AS price_per_hour, max(currency) AS currency
  FROM cluster_logs
  WHERE run_id <> 'by-hand'
  GROUP BY run_id, cluster_name
)
GROUP BY run_id
ORDER BY started DESC
