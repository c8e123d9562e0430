-- Clinical rows of one patient that cannot be about one person: they disagree on the sex, or their
-- ages imply years of birth too far apart for rounding. Nobody can tell which of them is right.
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
