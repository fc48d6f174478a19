SELECT created_at, severity, anomaly_type, message,
  CASE WHEN is_recovery OR status IN ('DEAD', 'MUTED') OR anomaly_type IN ('spike', 'outlier', 'schema_change', 'records_conflicting') THEN '' WHEN NOT is_ongoing THEN if(anomaly_type = 'records_lost', '', 'over when found')
    WHEN coalesce(found_at, created_at) < max(CASE WHEN is_recovery THEN coalesce(found_at, created_at) END)
    OVER (PARTITION BY fingerprint, channel) THEN 'over by now' ELSE 'goes on' END AS state,
  status, recipients, reason, rule, event_time, channel, is_recovery, query, fingerprint, found_at, is_ongoing
FROM alert_outbox
ORDER BY created_at DESC
