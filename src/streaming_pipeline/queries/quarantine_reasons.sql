SELECT reason, count(*) AS records, max(quarantined_at) AS last_seen
FROM quarantined_events LATERAL VIEW explode(reasons) AS reason
WHERE resolved_at IS NULL
GROUP BY reason
ORDER BY records DESC
