-- One digest per study over sizes and modification times of all files of its selected series; paths
-- do not count, so that a moved archive has the same digests.
SELECT
    studies.study_key,
    md5(concat_ws(
        ' ', count(*), sum(md5_number_lower(concat_ws(' ', instances.size_bytes, instances.mtime_ns)))
    )) AS files_digest
FROM studies
JOIN instances USING (study_key, SeriesInstanceUID)
GROUP BY studies.study_key
