-- Which clinical row belongs to which study. First by patient and date: the nearest study within
-- the window, if the row is also the nearest to the study. Then by accession number, for rows that
-- found none. Where the two ways name different studies, neither is believed.
CREATE TABLE by_key AS
SELECT
    clinical_rows.patient_key,
    clinical_rows.study_date AS clinical_date,
    studies.study_key
FROM clinical_rows
JOIN studies ON studies.patient_key = clinical_rows.patient_key
    AND abs(studies.study_date - clinical_rows.study_date) <= getvariable('window_days')
QUALIFY row_number() OVER (
    PARTITION BY studies.study_key
    ORDER BY abs(studies.study_date - clinical_rows.study_date), clinical_rows.study_date
) = 1
AND row_number() OVER (
    PARTITION BY clinical_rows.patient_key, clinical_rows.study_date
    ORDER BY
        abs(studies.study_date - clinical_rows.study_date),
        studies.status <> 'scored',
        studies.study_date,
        studies.study_key
) = 1;

CREATE TABLE by_accession AS
SELECT
    clinical_rows.patient_key,
    clinical_rows.study_date AS clinical_date,
    min(studies.study_key) AS study_key,
    count(DISTINCT studies.study_key) AS n_studies
FROM clinical_rows
JOIN accession_keys USING (accession_number)
JOIN studies USING (accession_key)
GROUP BY ALL;

CREATE TABLE match_conflicts AS
SELECT a.patient_key, a.clinical_date
FROM by_accession AS a
LEFT JOIN by_key AS own USING (patient_key, clinical_date)
LEFT JOIN by_key AS other ON other.study_key = a.study_key
    AND (other.patient_key, other.clinical_date) <> (a.patient_key, a.clinical_date)
WHERE a.n_studies > 1 OR own.study_key <> a.study_key OR other.study_key IS NOT NULL;

INSERT INTO quarantined
SELECT 'clinical', source_file, source_line, 'accession_number', 'conflicting_match'
FROM clinical_rows
JOIN match_conflicts
    ON match_conflicts.patient_key = clinical_rows.patient_key
    AND match_conflicts.clinical_date = clinical_rows.study_date;

CREATE TABLE matched AS
SELECT patient_key, clinical_date, study_key, 'key_and_date' AS way
FROM by_key ANTI JOIN match_conflicts USING (patient_key, clinical_date)
UNION ALL
SELECT patient_key, clinical_date, study_key, 'accession' AS way
FROM by_accession
ANTI JOIN match_conflicts USING (patient_key, clinical_date)
ANTI JOIN by_key USING (patient_key, clinical_date);
