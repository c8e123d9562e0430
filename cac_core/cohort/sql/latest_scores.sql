-- One row per study and protocol: a newly scored row replaces the old one.
WITH both_generations AS (
    SELECT *, 0 AS generation FROM old
    UNION ALL BY NAME
    SELECT *, 1 AS generation FROM new
)
SELECT * EXCLUDE (generation)
FROM both_generations
QUALIFY row_number() OVER (
    PARTITION BY study_key, protocol_digest
    ORDER BY generation DESC, scored_at DESC
) = 1
ORDER BY study_key, protocol_digest
