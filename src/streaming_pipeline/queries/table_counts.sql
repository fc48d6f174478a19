SELECT 'bronze_events' AS table_name, count(*) AS records FROM bronze_events
UNION ALL SELECT 'silver_events', count(*) FROM silver_events
UNION ALL SELECT 'duplicate_events', count(*) FROM duplicate_events
UNION ALL SELECT 'quarantined_events', count(*) FROM quarantined_events WHERE resolved_at IS NULL
UNION ALL SELECT 'gold_anomaly_predictions', count(*) FROM gold_anomaly_predictions
