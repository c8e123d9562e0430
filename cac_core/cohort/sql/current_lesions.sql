-- Lesions of every study that was not scored again, and the new ones.
SELECT * FROM (
    SELECT * FROM old
    ANTI JOIN rescored USING (study_key)
    UNION ALL BY NAME
    SELECT * FROM new
)
ORDER BY ALL
