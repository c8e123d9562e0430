-- Studies without a score by reason: all of them, and those of the newest run.
SELECT status, reason, count(*) AS studies, count(*) FILTER (WHERE run_id = $run_id) AS last_run
FROM latest
WHERE status <> 'scored' AND model = $model
GROUP BY ALL
ORDER BY studies DESC, status, reason
