SELECT created_at, severity, anomaly_type, message, rule, status, reason, recipients
FROM alert_outbox
ORDER BY created_at DESC
