-- The ten newest runs.
SELECT run_id, job, started_at, outcome, studies, scored, rejected, failed, skipped, seconds,
    model_id
FROM runs
ORDER BY started_at DESC
LIMIT 10
