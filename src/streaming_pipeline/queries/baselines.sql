SELECT baseline_id, table_name, name, window_minutes, size(windows) AS windows, array_min(windows) AS first_window, array_max(windows) AS last_window,
  created_at, baseline_id = max(baseline_id) OVER (PARTITION BY table_name) AS is_newest
FROM baselines
ORDER BY created_at DESC
