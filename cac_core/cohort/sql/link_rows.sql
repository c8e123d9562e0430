-- One row per patient in the analysis.
WITH outcomes_wide AS (
    PIVOT outcome_rows ON outcome
    USING first(event) AS event, first(days) AS days
    GROUP BY patient_key
),
people AS (
    SELECT patient_key, study_key, clinical_date, study_date FROM chosen WHERE step = 'included'
),
perfusion_near AS (
    SELECT people.patient_key, perfusion_rows.* EXCLUDE (patient_key, patient_id, study_date)
    FROM people
    JOIN perfusion_rows ON perfusion_rows.patient_key = people.patient_key
        AND abs(perfusion_rows.study_date - people.study_date) <= getvariable('window_days')
    QUALIFY row_number() OVER (
        PARTITION BY people.patient_key
        ORDER BY abs(perfusion_rows.study_date - people.study_date), perfusion_rows.study_date
    ) = 1
),
-- The first reader by name; further readings serve only the comparison of readers.
readings_near AS (
    SELECT people.patient_key, readings_rows.method, readings_rows.agatston,
        readings_rows.visual_grade
    FROM people
    JOIN readings_rows ON readings_rows.patient_key = people.patient_key
        AND abs(readings_rows.study_date - people.study_date) <= getvariable('window_days')
    QUALIFY row_number() OVER (
        PARTITION BY people.patient_key, readings_rows.method
        ORDER BY
            abs(readings_rows.study_date - people.study_date),
            readings_rows.reader,
            readings_rows.study_date
    ) = 1
)
SELECT
    people.patient_key,
    people.study_key,
    people.study_date,
    clinical_rows.* EXCLUDE (
        patient_key, patient_id, study_date, accession_number, part, source_file, source_line
    ),
    perfusion_near.* EXCLUDE (patient_key, part, source_file, source_line),
    studies.agatston,
    studies.cac_category,
    studies.p_category_0,
    studies.p_category_1_100,
    studies.p_category_101_400,
    studies.p_category_over_400,
    studies.agatston_low,
    studies.agatston_high,
    studies.needs_review,
    studies.review_reasons,
    expert.agatston AS expert_agatston,
    visual.visual_grade,
    CAST(observed.end_date - people.study_date AS INTEGER) AS follow_up_days,
    outcomes_wide.* EXCLUDE (patient_key)
FROM people
JOIN studies USING (study_key)
JOIN observed ON observed.patient_key = people.patient_key
JOIN clinical_rows
    ON clinical_rows.patient_key = people.patient_key
    AND clinical_rows.study_date = people.clinical_date
JOIN outcomes_wide ON outcomes_wide.patient_key = people.patient_key
LEFT JOIN perfusion_near ON perfusion_near.patient_key = people.patient_key
LEFT JOIN readings_near AS expert
    ON expert.patient_key = people.patient_key AND expert.method = 'expert'
LEFT JOIN readings_near AS visual
    ON visual.patient_key = people.patient_key AND visual.method = 'visual'
ORDER BY people.patient_key
