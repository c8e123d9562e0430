-- The newest runs, oldest first, with the number of studies each left to do.
SELECT *, greatest(studies - skipped - scored - rejected - failed, 0) AS queued
FROM (
    SELECT run_id, job, started_at, outcome, model_id, studies, scored, rejected, failed, skipped,
        seconds, file_reasons
    FROM runs
    WHERE job <> 'forget'
    ORDER BY started_at DESC, run_id DESC
    LIMIT $last
)
ORDER BY started_at, run_id
