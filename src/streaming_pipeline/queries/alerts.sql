SELECT created_at, severity, anomaly_type, message, rule, status, reason, recipients,
  event_time, channel, is_recovery, query
FROM alert_outbox
ORDER BY created_at DESC
