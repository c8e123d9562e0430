-- Clinical rows of one patient that contradict each other: different sexes, or ages that imply
-- birth years further apart than rounding explains. Which row is right is unknown, so none is used.
CREATE TABLE implied AS
SELECT
    patient_key,
    year(study_date) + (dayofyear(study_date) - 1) / 365.25 - age_years AS birth
FROM clinical_rows
WHERE age_years IS NOT NULL;

CREATE TABLE identity_conflicts AS
SELECT patient_key, 'sex' AS "column", 'sex_differs' AS reason
FROM clinical_rows
GROUP BY patient_key
HAVING count(DISTINCT sex) > 1
UNION ALL
SELECT patient_key, 'age_years', 'birth_year_differs'
FROM implied
GROUP BY patient_key
HAVING max(birth) - min(birth) > getvariable('birth_years_apart');

INSERT INTO quarantined
SELECT DISTINCT 'clinical', part, source_file, source_line, "column", reason
FROM clinical_rows JOIN identity_conflicts USING (patient_key);

DELETE FROM clinical_rows
WHERE patient_key IN (SELECT patient_key FROM identity_conflicts);
