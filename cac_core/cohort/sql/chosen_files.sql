-- The files of the chosen series, in an order that does not depend on where they lie.
SELECT instances.study_key, instances.path_key, instances.size_bytes, instances.mtime_ns
FROM instances
JOIN studies USING (study_key, SeriesInstanceUID)
WHERE instances.reason IS NULL OR instances.reason = 'truncated'
ORDER BY instances.study_key, instances.SOPInstanceUID, instances.path_key
