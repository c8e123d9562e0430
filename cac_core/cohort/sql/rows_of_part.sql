-- New content of one file of a table: old rows of studies that were not rescored, new rows of studies
-- in this file, and of new studies if this file takes them.
SELECT * FROM (
    SELECT * FROM old
    ANTI JOIN rescored USING (study_key, protocol_digest)
    UNION ALL BY NAME
    SELECT new.*
    FROM new
    LEFT JOIN homes USING (study_key, protocol_digest)
    WHERE coalesce(homes.part, $smallest) = $part
)
ORDER BY COLUMNS(lambda name: name NOT LIKE '%_png')
