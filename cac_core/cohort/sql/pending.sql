-- Wanted identities that are not in the ledger: serves resumption, dry run and nightly run. A failed
-- study counts as done until a retry is requested, of all reasons or of some, unless only the
-- archive was away, or the PACS did not deliver it.
SELECT wanted.*
FROM wanted
ANTI JOIN (
    SELECT study_key, instances_digest, model_digest, protocol_digest, core_version
    FROM scores
    WHERE NOT (
        $retry_failed AND status = 'failed'
        AND (len($reasons::VARCHAR[]) = 0 OR list_contains($reasons::VARCHAR[], reason))
    )
        AND coalesce(reason, '') NOT IN ('archive_unavailable', 'not_retrieved')
) AS done
USING (study_key, instances_digest, model_digest, protocol_digest, core_version)
ORDER BY wanted.study_key
