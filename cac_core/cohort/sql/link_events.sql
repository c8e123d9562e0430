-- Events by component: deaths, diagnoses by episode of care, procedures by day.
CREATE TABLE births AS
SELECT patient_key, min(study_date - CAST(ceil((age_years + 1) * 365.25) AS INTEGER)) AS born_after
FROM clinical_rows
WHERE age_years IS NOT NULL
GROUP BY patient_key;

-- Only patients of the clinical table: a registry holds many more.
CREATE VIEW encounters_keyed AS
SELECT
    patient_keys.patient_key,
    encounters.* EXCLUDE (patient_id),
    CASE
        WHEN encounters.admit_date > deaths_rows.death_date THEN 'after_death'
        WHEN encounters.admit_date < births.born_after THEN 'before_birth'
    END AS fault
FROM encounters
JOIN patient_keys USING (patient_id)
SEMI JOIN clinical_rows ON clinical_rows.patient_key = patient_keys.patient_key
LEFT JOIN deaths_rows ON deaths_rows.patient_key = patient_keys.patient_key
LEFT JOIN births ON births.patient_key = patient_keys.patient_key;

INSERT INTO quarantined
SELECT DISTINCT 'encounters', part, source_file, source_line, 'admit_date', fault
FROM encounters_keyed
WHERE fault IS NOT NULL;

-- Compare each distinct code once, not once per record.
CREATE TABLE known_codes AS
SELECT DISTINCT
    codes.code AS full_code,
    codes.system AS full_system,
    components.component,
    components.kind,
    components.types,
    components.record_types
FROM (
    SELECT DISTINCT 'diagnosis' AS kind, diagnosis_code AS code, diagnosis_system AS system
    FROM encounters
    UNION ALL
    SELECT DISTINCT 'procedure' AS kind, procedure_code AS code, procedure_system AS system
    FROM encounters
) AS codes
JOIN components
    ON components.kind = codes.kind
    AND starts_with(codes.code, components.code)
    AND coalesce(components.system = codes.system, components.system IS NULL OR if_unstated);

CREATE TABLE diagnosed AS
SELECT DISTINCT e.patient_key, known_codes.component, e.admit_date
FROM encounters_keyed AS e
JOIN known_codes ON known_codes.kind = 'diagnosis' AND known_codes.full_code = e.diagnosis_code
    AND known_codes.full_system IS NOT DISTINCT FROM e.diagnosis_system
WHERE e.fault IS NULL
    AND (
        len(types) = 0 OR e.diagnosis_type IS NULL OR list_contains(types, e.diagnosis_type)
    )
    AND (
        len(record_types) = 0
        OR e.record_type IS NULL
        OR list_contains(record_types, e.record_type)
    );

-- Episodes of care: stays that overlap, or begin at most one day after the previous one ends, form
-- one episode, so that a transfer or a duplicate abstract adds no event. Ambulatory visits do not
-- join episodes.
CREATE TABLE episodes AS
WITH stays AS (
    SELECT DISTINCT
        patient_key,
        admit_date AS begin_date,
        coalesce(discharge_date, admit_date) AS end_date
    FROM encounters_keyed
    SEMI JOIN diagnosed USING (patient_key)
    WHERE fault IS NULL AND record_type IS DISTINCT FROM 'ambulatory'
),
reaches AS (
    SELECT *, max(end_date) OVER (
        PARTITION BY patient_key ORDER BY begin_date, end_date
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS reached
    FROM stays
),
numbered AS (
    SELECT *, count(*) FILTER (WHERE reached IS NULL OR begin_date > reached + 1) OVER (
        PARTITION BY patient_key ORDER BY begin_date, end_date
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS episode
    FROM reaches
)
SELECT patient_key, min(begin_date) AS begin_date, max(end_date) AS end_date
FROM numbered
GROUP BY patient_key, episode;

CREATE TABLE events AS
SELECT diagnosed.patient_key, component, coalesce(episodes.begin_date, admit_date) AS event_date
FROM diagnosed
LEFT JOIN episodes
    ON episodes.patient_key = diagnosed.patient_key
    AND diagnosed.admit_date BETWEEN episodes.begin_date AND episodes.end_date
UNION
SELECT e.patient_key, known_codes.component, coalesce(e.procedure_date, e.admit_date)
FROM encounters_keyed AS e
JOIN known_codes ON known_codes.kind = 'procedure' AND known_codes.full_code = e.procedure_code
    AND known_codes.full_system IS NOT DISTINCT FROM e.procedure_system
WHERE e.fault IS NULL
    AND (
        len(record_types) = 0
        OR e.record_type IS NULL
        OR list_contains(record_types, e.record_type)
    )
UNION
SELECT patient_key, death_components.component, death_date
FROM deaths_rows CROSS JOIN death_components;
