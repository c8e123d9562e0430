-- Vital statistics: one row per death.
WITH typed AS (
    SELECT
        *,
        raw.patient_id AS patient,
        date_of('death_date', raw.death_date) AS died
    FROM raw
)
SELECT
    line AS source_line,
    patient AS patient_id,
    died AS death_date,
    only_problems([
        needed('patient_id', patient),
        needed_of('death_date', death_date, died, 'unparsed_date'),
        ordered('death_date', died > getvariable('coverage_end'), 'after_coverage')
    ]) AS problems
FROM typed
