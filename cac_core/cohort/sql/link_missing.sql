-- For each clinical row: the required covariates that it lacks, and the prior coronary disease that
-- it records.
CREATE TABLE missing AS
SELECT patient_key, clinical_date, nullif(concat_ws(', ', {absent}), '') AS columns
FROM (
    SELECT
        c.*,
        c.study_date AS clinical_date,
        p.* EXCLUDE (patient_key, patient_id, study_date, part, source_file, source_line)
    FROM clinical_rows AS c
    LEFT JOIN perfusion_rows AS p ON p.patient_key = c.patient_key
        AND abs(p.study_date - c.study_date) <= getvariable('window_days')
    QUALIFY row_number() OVER (
        PARTITION BY c.patient_key, c.study_date
        ORDER BY abs(p.study_date - c.study_date), p.study_date
    ) = 1
);

CREATE TABLE prior AS
SELECT
    patient_key,
    study_date AS clinical_date,
    CASE
        WHEN prior_mi = 1 THEN 'prior_mi'
        WHEN prior_pci = 1 THEN 'prior_pci'
        WHEN prior_cabg = 1 THEN 'prior_cabg'
    END AS disease
FROM clinical_rows;
