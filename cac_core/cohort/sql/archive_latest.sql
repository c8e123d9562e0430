-- The row scored last of each study and model, whatever its protocol.
SELECT *
FROM scores
QUALIFY row_number() OVER (
    PARTITION BY model, study_key ORDER BY scored_at DESC, protocol_digest
) = 1
