SELECT severity, anomaly_type, channel, status, count(*) AS alerts, max(attempts) AS most_attempts, max(created_at) AS newest,
  max(sent_at) AS last_sent
FROM alert_outbox
GROUP BY severity, anomaly_type, channel, status
ORDER BY newest DESC, anomaly_type, status
