-- The ledger with new digests of files, for studies whose files changed and whose pixels did not.
SELECT scores.* REPLACE (coalesce(stamps.files_digest, scores.files_digest) AS files_digest)
FROM scores
LEFT JOIN stamps USING (study_key, protocol_digest)
ORDER BY scores.study_key, scores.protocol_digest
