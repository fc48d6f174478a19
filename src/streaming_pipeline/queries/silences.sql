SELECT rule, max_by(until, created_at) AS until
FROM alert_silences
GROUP BY rule
