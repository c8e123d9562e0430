-- Scores that need review: for any reason (null) and by reason, in all and in the newest run.
WITH reviews AS (
    SELECT run_id, unnest(list_append(string_split(review_reasons, ';'), NULL)) AS reason
    FROM latest
    WHERE needs_review AND model = $model
)
SELECT reason, count(*) AS studies, count(*) FILTER (WHERE run_id = $run_id) AS last_run
FROM reviews
GROUP BY reason
ORDER BY reason IS NOT NULL, studies DESC, reason
