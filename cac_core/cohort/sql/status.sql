-- Studies by status, reason and category, most frequent first.
SELECT status, reason, cac_category, count(*) AS studies
FROM scores
GROUP BY ALL
ORDER BY status DESC, studies DESC, reason, cac_category
