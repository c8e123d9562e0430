-- One digest per study over sizes and modification times of all files of its selected series; paths
-- do not count, so that a moved archive has the same digests, nor do copies that kept their time.
WITH files AS (
    SELECT DISTINCT
        studies.study_key, instances.SOPInstanceUID, instances.size_bytes, instances.mtime_ns
    FROM studies
    JOIN instances USING (study_key, SeriesInstanceUID)
)
SELECT
    study_key,
    md5(concat_ws(
        ' ', count(*), sum(md5_number_lower(concat_ws(' ', size_bytes, mtime_ns)))
    )) AS files_digest
FROM files
GROUP BY study_key
