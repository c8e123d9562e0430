-- Studies with their identity in the ledger whose files have another size or modification time than
-- when they were scored, or of which an earlier version kept no digest (scored_files null).
SELECT
    wanted.*,
    scores.files_digest AS scored_files,
    scores.pixel_digest AS scored_pixels,
    scores.KVP AS scored_kvp,
    scores.slice_thickness_mm AS scored_thickness,
    scores.ConvolutionKernel AS scored_kernel
FROM wanted
JOIN scores
    USING (study_key, instances_digest, model_digest, protocol_digest, core_version)
WHERE wanted.files_digest IS NOT NULL
    AND scores.files_digest IS DISTINCT FROM wanted.files_digest
    AND coalesce(scores.reason, '') NOT IN ('archive_unavailable', 'not_retrieved')
    AND NOT ($retry_failed AND scores.status = 'failed')
ORDER BY wanted.study_key
