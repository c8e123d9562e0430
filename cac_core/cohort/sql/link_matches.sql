-- Match each clinical row to at most one study, and each study to at most one row: first by patient
-- and date (the nearest study within the window, if the row is also the nearest to that study), then
-- by accession number for rows without a match. Contradictory matches go to quarantine. The result
-- must not depend on the order of keys, which changes with the secret.
CREATE TABLE numbered AS
SELECT DISTINCT
    c.patient_key, c.study_date AS clinical_date, accession_keys.accession_key
FROM clinical_keyed AS c JOIN accession_keys USING (accession_number);

-- An accession number that rows or studies of several patients share is no evidence. Rows in
-- quarantine count here too: they also belong to a patient.
CREATE TABLE shared_accessions AS
SELECT accession_key
FROM (
    SELECT accession_key FROM numbered
    GROUP BY accession_key HAVING count(DISTINCT patient_key) > 1
    UNION
    SELECT accession_key
    FROM study_accessions JOIN studies USING (study_key)
    GROUP BY accession_key HAVING count(DISTINCT coalesce(patient_key, study_key)) > 1
)
SEMI JOIN study_accessions USING (accession_key);

-- Studies with the accession number of a row.
CREATE TABLE named AS
SELECT DISTINCT c.patient_key, c.study_date AS clinical_date, study_accessions.study_key
FROM clinical_rows AS c
JOIN accession_keys USING (accession_number)
JOIN study_accessions USING (accession_key)
ANTI JOIN shared_accessions USING (accession_key);

-- Candidate pairs of row and study, with the evidence for each.
CREATE TABLE pairs AS
WITH candidates AS (
    SELECT c.patient_key, c.study_date AS clinical_date, studies.study_key
    FROM clinical_rows AS c JOIN studies USING (patient_key)
    UNION
    FROM named
),
kept AS (
    SELECT
        candidates.*,
        c.sex,
        year(c.study_date) + (dayofyear(c.study_date) - 1) / 365.25 - c.age_years AS birth,
        studies.patient_key AS archive_key,
        studies.patient_sex,
        studies.birth_year,
        studies.has_ctac,
        studies.status IS NOT DISTINCT FROM 'scored' AS scored,
        abs(studies.study_date - c.study_date) AS days_apart,
        named.study_key IS NOT NULL AS by_number
    FROM candidates
    JOIN studies USING (study_key)
    JOIN clinical_rows AS c
        ON c.patient_key = candidates.patient_key AND c.study_date = candidates.clinical_date
    LEFT JOIN named ON named.patient_key = candidates.patient_key
        AND named.clinical_date = candidates.clinical_date
        AND named.study_key = candidates.study_key
)
SELECT
    *,
    coalesce(archive_key = patient_key, false) AS by_patient,
    days_apart <= getvariable('window_days') AS within_window,
    CASE
        WHEN sex <> patient_sex THEN 'sex_differs'
        WHEN birth_year NOT BETWEEN floor(birth) - 1 - getvariable('birth_year_tolerance')
            AND floor(birth) + getvariable('birth_year_tolerance')
            THEN 'birth_year_differs'
    END AS fault
FROM kept;

-- By patient and date. Among equally near studies, prefer the one with the row's accession number,
-- then one with a score; remaining ties are ambiguous.
CREATE TABLE nearest AS
SELECT *
FROM pairs
WHERE by_patient AND within_window
QUALIFY rank() OVER (PARTITION BY study_key ORDER BY days_apart, NOT by_number) = 1
AND rank() OVER (
    PARTITION BY patient_key, clinical_date
    ORDER BY days_apart, NOT by_number, NOT scored, NOT has_ctac
) = 1;

CREATE TABLE by_key AS
SELECT
    *,
    -- Ties among studies without a score have no effect on the result.
    scored AND count(*) OVER (PARTITION BY patient_key, clinical_date) > 1
    OR count(*) OVER (PARTITION BY study_key) > 1 AS tied
FROM nearest
QUALIFY scored OR row_number() OVER (
    PARTITION BY patient_key, clinical_date ORDER BY study_key
) = 1;

-- By accession number alone, for rows without a match.
CREATE TABLE by_accession AS
WITH best AS (
    SELECT *
    FROM pairs ANTI JOIN by_key USING (patient_key, clinical_date)
    WHERE by_number
    QUALIFY rank() OVER (PARTITION BY study_key ORDER BY days_apart) = 1
    AND rank() OVER (
        PARTITION BY patient_key, clinical_date
        ORDER BY days_apart, NOT scored, NOT has_ctac
    ) = 1
)
SELECT
    *,
    scored AND count(*) OVER (PARTITION BY patient_key, clinical_date) > 1
    OR count(*) OVER (PARTITION BY study_key) > 1 AS tied
FROM best
QUALIFY scored OR row_number() OVER (
    PARTITION BY patient_key, clinical_date ORDER BY study_key
) = 1;

-- Rows whose match is rejected, with the first reason that applies.
CREATE TABLE match_conflicts AS
SELECT
    patient_key,
    clinical_date,
    CASE min(severity)
        WHEN 1 THEN 'conflicting_match'
        WHEN 2 THEN 'accession_outside_window'
        WHEN 3 THEN 'ambiguous_match'
        WHEN 4 THEN 'sex_differs'
        ELSE 'birth_year_differs'
    END AS reason
FROM (
    -- The accession number belongs to other studies than the matched one.
    SELECT patient_key, clinical_date, 1 AS severity
    FROM by_key SEMI JOIN named USING (patient_key, clinical_date)
    GROUP BY patient_key, clinical_date
    HAVING NOT bool_or(by_number)
    UNION ALL
    -- The accession number belongs to a study of another row or another patient.
    SELECT a.patient_key, a.clinical_date, 1
    FROM by_accession AS a
    LEFT JOIN by_key AS other USING (study_key)
    LEFT JOIN (SELECT DISTINCT patient_key FROM clinical_keyed) AS known
        ON known.patient_key = a.archive_key
    WHERE other.study_key IS NOT NULL OR (NOT a.by_patient AND known.patient_key IS NOT NULL)
    UNION ALL
    SELECT patient_key, clinical_date, 2 FROM by_accession WHERE NOT within_window
    UNION ALL
    SELECT patient_key, clinical_date, 3 FROM by_key WHERE tied
    UNION ALL
    SELECT patient_key, clinical_date, 3 FROM by_accession WHERE tied
    UNION ALL
    SELECT patient_key, clinical_date, CASE fault WHEN 'sex_differs' THEN 4 ELSE 5 END
    FROM (FROM by_key UNION ALL FROM by_accession)
    WHERE fault IS NOT NULL
)
GROUP BY patient_key, clinical_date;

INSERT INTO quarantined
SELECT
    'clinical',
    part,
    source_file,
    source_line,
    CASE reason
        WHEN 'sex_differs' THEN 'sex'
        WHEN 'birth_year_differs' THEN 'age_years'
        WHEN 'ambiguous_match' THEN 'study_date'
        ELSE 'accession_number'
    END,
    reason
FROM clinical_rows
JOIN match_conflicts
    ON match_conflicts.patient_key = clinical_rows.patient_key
    AND match_conflicts.clinical_date = clinical_rows.study_date;

INSERT INTO quarantined
SELECT 'clinical', part, source_file, source_line, 'accession_number', 'shared_accession'
FROM clinical_rows
JOIN accession_keys USING (accession_number)
SEMI JOIN shared_accessions USING (accession_key);

CREATE TABLE matched AS
SELECT patient_key, clinical_date, study_key, 'key_and_date' AS way
FROM by_key ANTI JOIN match_conflicts USING (patient_key, clinical_date)
UNION ALL
SELECT patient_key, clinical_date, study_key, 'accession' AS way
FROM by_accession ANTI JOIN match_conflicts USING (patient_key, clinical_date);
