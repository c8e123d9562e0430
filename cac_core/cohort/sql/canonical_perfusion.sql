-- Quantitative perfusion and function of a study.
WITH typed AS (
    SELECT
        *,
        text_of(raw.patient_id) AS patient,
        date_of(raw.study_date) AS studied,
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
        parsed('study_date', study_date, studied, 'unparsed_date'),
        CASE WHEN text_of(study_date) IS NULL THEN needed('study_date', studied) END,
        parsed('stress_tpd_pct', stress_tpd_pct, stress, 'unparsed_number'),
        parsed('rest_tpd_pct', rest_tpd_pct, rest, 'unparsed_number'),
        parsed('stress_lvef_pct', stress_lvef_pct, ejected, 'unparsed_number')
    ]) AS problems
FROM typed
