-- Period in which the registry observed a patient.
WITH typed AS (
    SELECT
        *,
        raw.patient_id AS patient,
        date_of('coverage_end', raw.coverage_end) AS watched_until,
        date_of('emigration_date', raw.emigration_date) AS moved
    FROM raw
)
SELECT
    line AS source_line,
    patient AS patient_id,
    watched_until AS coverage_end,
    moved AS emigration_date,
    only_problems([
        needed('patient_id', patient),
        parsed('coverage_end', coverage_end, watched_until, 'unparsed_date'),
        parsed('emigration_date', emigration_date, moved, 'unparsed_date')
    ]) AS problems
FROM typed
