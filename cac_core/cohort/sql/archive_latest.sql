-- The newest row of each study and model, under any protocol.
SELECT *
FROM scores
QUALIFY row_number() OVER (
    PARTITION BY model, study_key ORDER BY scored_at DESC, protocol_digest
) = 1
