SELECT used.usage_date, try_element_at(used.custom_tags, 'environment') AS environment, used.usage_metadata.job_id AS job_id,
  used.usage_metadata.job_run_id AS run_id, used.sku_name, round(sum(CAST(used.usage_quantity AS DOUBLE)), 3) AS dbus,
  round(sum(CAST(used.usage_quantity AS DOUBLE) * CAST(price.pricing.effective_list.`default` AS DOUBLE)), 4) AS cost,
  price.currency_code AS currency
FROM system.billing.usage AS used
LEFT JOIN system.billing.list_prices AS price
  ON price.cloud = used.cloud AND price.sku_name = used.sku_name AND price.usage_unit = used.usage_unit
  AND used.usage_end_time >= price.price_start_time AND (price.price_end_time IS NULL OR used.usage_end_time < price.price_end_time)
WHERE used.usage_date >= current_date() - INTERVAL 30 DAYS
  -- Runs of the jobs, also on serverless compute, which has no tags; and by the tag what has no run, such as the exploration cluster.
  AND (used.usage_metadata.job_run_id IN (SELECT run_id FROM cluster_logs) OR try_element_at(used.custom_tags, 'project') = 'streaming-pipeline')
GROUP BY ALL
ORDER BY usage_date DESC, cost DESC
