-- Identities that are wanted and not in the ledger: resume, dry run and nightly delta in one.
-- A failed study counts as done until it is retried on request.
SELECT wanted.*
FROM wanted
ANTI JOIN (
    SELECT study_key, instances_digest, model_digest, protocol_digest, core_version
    FROM scores
    WHERE NOT ($retry_failed AND status = 'failed')
) AS done
USING (study_key, instances_digest, model_digest, protocol_digest, core_version)
ORDER BY wanted.study_key
