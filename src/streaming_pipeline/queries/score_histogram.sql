SELECT floor(anomaly_score * 100) / 100 AS score, count(*) AS events, count_if(anomaly_flag = -1) AS flagged, count_if(anomaly_flag = 1) AS usual
FROM gold_anomaly_predictions
GROUP BY floor(anomaly_score * 100) / 100
ORDER BY score
