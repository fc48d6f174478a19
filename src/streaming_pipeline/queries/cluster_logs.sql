SELECT * FROM cluster_logs ORDER BY end_time DESC
