-- One part of a table with rows per study: the rows of studies that were not scored again, and the
-- new ones of studies that are at home here, or nowhere yet where this part takes those.
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
