-- The part that holds the rows of each study that was scored again.
SELECT study_key, protocol_digest, min(part) AS part
FROM keys
SEMI JOIN rescored USING (study_key, protocol_digest)
GROUP BY study_key, protocol_digest
