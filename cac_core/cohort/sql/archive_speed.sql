-- Median seconds per study of each run, by stage.
SELECT run_id, count(*) AS n,
    median(seconds_read) AS seconds_read,
    median(seconds_heart) AS seconds_heart,
    median(seconds_calcium) AS seconds_calcium,
    median(seconds_score) AS seconds_score,
    median(seconds_preview) AS seconds_preview
FROM latest
WHERE status = 'scored' AND list_contains($runs, run_id)
GROUP BY run_id
