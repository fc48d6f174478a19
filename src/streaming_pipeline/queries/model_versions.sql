SELECT model_name, model_version, count(*) AS events, count_if(anomaly_flag = -1) AS flagged, min(scored_at) AS first_scored,
  max(scored_at) AS last_scored, min(event_date) AS first_date, max(event_date) AS last_date
FROM gold_anomaly_predictions
GROUP BY model_name, model_version
ORDER BY last_scored DESC
