-- Quantitative perfusion and function of a study.
WITH typed AS (
    SELECT
        *,
        raw.patient_id AS patient,
        date_of('study_date', raw.study_date) AS studied,
        number_of('stress_tpd_pct', raw.stress_tpd_pct) AS stress,
        number_of('rest_tpd_pct', raw.rest_tpd_pct) AS rest,
        number_of('stress_lvef_pct', raw.stress_lvef_pct) AS ejected
    FROM raw
)
SELECT
    line AS source_line,
    patient AS patient_id,
    studied AS study_date,
    stress AS stress_tpd_pct,
    rest AS rest_tpd_pct,
    ejected AS stress_lvef_pct,
    only_problems([
        needed('patient_id', patient),
        needed_of('study_date', study_date, studied, 'unparsed_date'),
        measured('stress_tpd_pct', stress_tpd_pct, stress),
        measured('rest_tpd_pct', rest_tpd_pct, rest),
        measured('stress_lvef_pct', stress_lvef_pct, ejected)
    ]) AS problems
FROM typed
