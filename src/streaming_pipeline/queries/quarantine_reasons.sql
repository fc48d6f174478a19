SELECT reason, count(*) AS records, min(quarantined_at) AS first_seen, max(quarantined_at) AS last_seen,
  max_by(left(make_valid_utf8(CAST(raw_payload AS STRING)), 120), quarantined_at) AS example
FROM quarantined_events LATERAL VIEW explode(reasons) AS reason
WHERE resolved_at IS NULL
GROUP BY reason
ORDER BY records DESC, reason
