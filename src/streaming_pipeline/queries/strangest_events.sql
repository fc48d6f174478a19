SELECT to_json(struct(* EXCEPT (timestamp_unix, anomaly_score, anomaly_flag, explanation, event_date, topic_id, topic, partition, offset,
    kafka_timestamp, model_name, model_version, scored_at))) AS event, anomaly_score, explanation, model_version, scored_at
FROM gold_anomaly_predictions
WHERE anomaly_flag = -1
ORDER BY anomaly_score ASC
LIMIT 20
