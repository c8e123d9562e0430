-- The step of the cohort flow that each study reaches, and for each patient the best of them.
CREATE TABLE old_disease AS
SELECT studies.study_key, min(events.component) AS component
FROM matched
JOIN studies USING (study_key)
JOIN events ON events.patient_key = matched.patient_key
    AND events.event_date <= studies.study_date
SEMI JOIN known_disease ON known_disease.component = events.component
GROUP BY ALL;

CREATE TABLE observed AS
SELECT
    clinical.patient_key,
    least(
        getvariable('coverage_end'),
        any_value(follow_up_rows.coverage_end),
        any_value(follow_up_rows.emigration_date),
        any_value(deaths_rows.death_date)
    ) AS end_date
FROM (SELECT DISTINCT patient_key FROM clinical_rows) AS clinical
LEFT JOIN follow_up_rows USING (patient_key)
LEFT JOIN deaths_rows USING (patient_key)
GROUP BY ALL;

CREATE TABLE study_steps AS
SELECT
    matched.patient_key,
    matched.clinical_date,
    matched.study_key,
    studies.study_date,
    missing.columns AS missing_columns,
    CASE
        WHEN NOT studies.has_ctac THEN 'no_ctac_study'
        WHEN studies.status IS DISTINCT FROM 'scored' OR studies.agatston IS NULL THEN 'no_score'
        WHEN studies.study_date IS NULL THEN 'no_study_date'
        WHEN prior.disease IS NOT NULL OR old_disease.component IS NOT NULL THEN 'known_cad'
        WHEN missing.columns IS NOT NULL THEN 'missing_covariate'
        WHEN deaths_conflicts.patient_key IS NOT NULL THEN 'conflicting_death'
        WHEN observed.end_date <= studies.study_date THEN 'no_follow_up'
        ELSE 'included'
    END AS step,
    coalesce(prior.disease, old_disease.component) AS old_disease
FROM matched
JOIN studies USING (study_key)
JOIN prior
    ON prior.patient_key = matched.patient_key AND prior.clinical_date = matched.clinical_date
LEFT JOIN missing
    ON missing.patient_key = matched.patient_key AND missing.clinical_date = matched.clinical_date
LEFT JOIN old_disease ON old_disease.study_key = matched.study_key
LEFT JOIN deaths_conflicts ON deaths_conflicts.patient_key = matched.patient_key
LEFT JOIN observed ON observed.patient_key = matched.patient_key;

-- A patient's first usable study; if there is none, the study that reaches the latest step.
CREATE TABLE chosen AS
SELECT study_steps.*, steps.step_number
FROM study_steps JOIN steps USING (step)
QUALIFY row_number() OVER (
    PARTITION BY patient_key
    ORDER BY step_number DESC, study_date, clinical_date
) = 1;

-- A score without a study date has no follow-up, and only its accession number can match it.
CREATE TABLE undated AS
SELECT DISTINCT patient_key
FROM studies
WHERE has_ctac AND status = 'scored' AND agatston IS NOT NULL AND study_date IS NULL;

CREATE TABLE flow AS
WITH everyone AS (
    SELECT patient_key, step, CASE step
        WHEN 'known_cad' THEN old_disease
        WHEN 'missing_covariate' THEN missing_columns
    END AS detail
    FROM chosen
    UNION ALL
    SELECT DISTINCT
        patient_key,
        CASE WHEN undated.patient_key IS NULL THEN 'no_ctac_study' ELSE 'no_study_date' END,
        NULL
    FROM clinical_rows
    ANTI JOIN chosen USING (patient_key)
    LEFT JOIN undated USING (patient_key)
    UNION ALL
    SELECT DISTINCT patient_key, 'no_clinical_record', NULL
    FROM studies
    ANTI JOIN clinical_rows USING (patient_key)
    ANTI JOIN matched USING (study_key)
    WHERE patient_key IS NOT NULL
)
SELECT
    everyone.patient_key,
    CAST(steps.step_number AS TINYINT) AS step_number,
    everyone.step,
    everyone.detail,
    CAST(coalesce(counted.n, 0) AS INTEGER) AS n_studies
FROM everyone
JOIN steps USING (step)
LEFT JOIN (
    SELECT patient_key, count(*) AS n FROM studies GROUP BY patient_key
) AS counted USING (patient_key)
ORDER BY everyone.patient_key;

CREATE TABLE matches AS
SELECT
    CAST(year(clinical_rows.study_date) AS INTEGER) AS study_year,
    getvariable('site') AS site,
    clinical_rows.source_file,
    count(*) AS n_rows,
    count(*) FILTER (WHERE matched.way = 'key_and_date') AS n_by_key_and_date,
    count(*) FILTER (WHERE matched.way = 'accession') AS n_by_accession,
    count(*) FILTER (WHERE matched.way IS NULL) AS n_unmatched,
    count(matched.way) / count(*) AS match_rate
FROM clinical_rows
LEFT JOIN matched
    ON matched.patient_key = clinical_rows.patient_key
    AND matched.clinical_date = clinical_rows.study_date
GROUP BY ALL
ORDER BY ALL;
