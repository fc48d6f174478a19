SELECT * FROM gold_anomaly_predictions WHERE anomaly_flag = -1 ORDER BY anomaly_score ASC LIMIT 20
