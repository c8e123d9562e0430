-- The file that holds the rows of each rescored study.
SELECT study_key, protocol_digest, min(part) AS part
FROM keys
SEMI JOIN rescored USING (study_key, protocol_digest)
GROUP BY study_key, protocol_digest
