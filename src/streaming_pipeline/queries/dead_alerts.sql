SELECT count_if(status = 'DEAD') AS dead_alerts, count_if(status = 'PENDING') AS waiting_alerts,
  max(created_at) FILTER (WHERE status = 'DEAD') AS newest, max_by(reason, created_at) FILTER (WHERE status = 'DEAD') AS reason
FROM alert_outbox
