-- Studies by status, reason and category, most frequent first, and how many of them need review.
SELECT status, reason, cac_category, count(*) AS studies,
    count(*) FILTER (WHERE needs_review) AS need_review
FROM scores
GROUP BY ALL
ORDER BY status DESC, studies DESC, reason, cac_category
