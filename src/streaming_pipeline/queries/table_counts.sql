SELECT 'bronze_events' AS table_name, count(*) AS records FROM bronze_events
UNION ALL SELECT 'silver_events' AS table_name, count(*) AS records FROM silver_events
UNION ALL SELECT 'duplicate_events' AS table_name, count(*) AS records FROM duplicate_events
UNION ALL SELECT 'quarantined_events' AS table_name, count(*) AS records FROM quarantined_events WHERE resolved_at IS NULL
UNION ALL SELECT 'gold_anomaly_predictions' AS table_name, count(*) AS records FROM gold_anomaly_predictions
