SELECT reason, sum(records) AS records, count(value) AS distinct_values,
  transform(array_sort(collect_list(struct(place, value, records)) FILTER (WHERE value IS NOT NULL AND place <= 5)),
    one -> struct(one.value AS value, one.records AS records)) AS frequent_values,
  min(first_seen) AS first_seen, max(newest).seen AS last_seen, max(newest).partition AS partition, max(newest).offset AS offset,
  max(newest).example AS example
FROM (
  SELECT reason, value, count(*) AS records, min(quarantined_at) AS first_seen,
    max(struct(quarantined_at AS seen, partition, offset, left(payload, 120) AS example)) AS newest,
    row_number() OVER (PARTITION BY reason ORDER BY value IS NULL, count(*) DESC, value) AS place
  FROM (
    SELECT reason, quarantined_at, partition, offset, payload,
      left(try_element_at(from_json(payload, 'MAP<STRING, STRING>'), split_part(reason, ':', 2)), 60) AS value
    FROM (
      -- A schema registry's frame is five bytes in front of the JSON.
      SELECT *, make_valid_utf8(CAST(if(startswith(raw_payload, X'00'), substring(raw_payload, 6), raw_payload) AS STRING)) AS payload
      FROM quarantined_events
      WHERE resolved_at IS NULL
    ) LATERAL VIEW explode(reasons) AS reason
  )
  GROUP BY reason, value
)
GROUP BY reason
ORDER BY records DESC, reason
