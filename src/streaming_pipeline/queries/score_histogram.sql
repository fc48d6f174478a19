SELECT round(anomaly_score, 2) AS score, count(*) AS events, count_if(anomaly_flag = -1) AS flagged, count_if(anomaly_flag = 1) AS usual
FROM gold_anomaly_predictions
GROUP BY round(anomaly_score, 2)
ORDER BY score
