-- OMOP CDM 5.4. `person_id` is the first 60 bits of the patient key. Type concepts: 32879 registry,
-- 32880 standard algorithm. Concept 0 means that no standard concept is assigned. Concepts of the
-- vocabulary: sex 8507, 8532; body mass index 3038553 (LOINC 39156-5) in 9531 (kg/m2); 8554 (%).
CREATE VIEW people AS
SELECT *, CAST('0x' || left(patient_key, 15) AS BIGINT) AS person_id FROM linked;

CREATE VIEW omop_person AS
SELECT
    person_id,
    CASE sex WHEN 'M' THEN 8507 WHEN 'F' THEN 8532 ELSE 0 END AS gender_concept_id,
    patient_key AS person_source_value,
    -- Exact where ages have decimals; up to a year too late where they are whole years.
    CAST(year(study_date - CAST(round(age_years * 365.25) AS INTEGER)) AS INTEGER) AS year_of_birth,
    0 AS race_concept_id,
    0 AS ethnicity_concept_id,
    sex AS gender_source_value
FROM people
ORDER BY person_id;

CREATE VIEW omop_measurement AS
WITH scores AS (
    SELECT person_id, study_date, 32880 AS type_concept, agatston AS value, '1' AS unit,
        'agatston' AS source_value
    FROM people
    UNION ALL
    SELECT person_id, study_date, 32879, expert_agatston, '1', 'expert_agatston' FROM people
    UNION ALL
    SELECT person_id, study_date, 32879, bmi_kg_m2, 'kg/m2', 'bmi_kg_m2' FROM people
    UNION ALL
    SELECT person_id, study_date, 32879, stress_tpd_pct, '%', 'stress_tpd_pct' FROM people
    UNION ALL
    SELECT person_id, study_date, 32879, stress_lvef_pct, '%', 'stress_lvef_pct' FROM people
    UNION ALL
    SELECT person_id, study_date, 32879, rest_tpd_pct, '%', 'rest_tpd_pct' FROM people
    UNION ALL
    SELECT person_id, study_date, 32880, agatston_low, '1', 'agatston_low' FROM people
    UNION ALL
    SELECT person_id, study_date, 32880, agatston_high, '1', 'agatston_high' FROM people
)
SELECT
    row_number() OVER (ORDER BY person_id, source_value) AS measurement_id,
    person_id,
    CASE source_value WHEN 'bmi_kg_m2' THEN 3038553 ELSE 0 END AS measurement_concept_id,
    study_date AS measurement_date,
    type_concept AS measurement_type_concept_id,
    value AS value_as_number,
    unit AS unit_source_value,
    source_value AS measurement_source_value,
    CASE unit WHEN 'kg/m2' THEN 9531 WHEN '%' THEN 8554 ELSE 0 END AS unit_concept_id
FROM scores
WHERE value IS NOT NULL
ORDER BY measurement_id;

CREATE VIEW omop_observation_period AS
SELECT
    row_number() OVER (ORDER BY person_id) AS observation_period_id,
    person_id,
    study_date AS observation_period_start_date,
    CAST(study_date + follow_up_days AS DATE) AS observation_period_end_date,
    32879 AS period_type_concept_id
FROM people
ORDER BY observation_period_id;

CREATE VIEW omop_condition_occurrence AS
SELECT
    row_number() OVER (ORDER BY person_id, event_date, component) AS condition_occurrence_id,
    person_id,
    concepts.concept_id AS condition_concept_id,
    event_date AS condition_start_date,
    32879 AS condition_type_concept_id,
    component AS condition_source_value
FROM events
JOIN people USING (patient_key)
JOIN concepts USING (component)
WHERE concepts.kind = 'diagnosis'
ORDER BY condition_occurrence_id;

CREATE VIEW omop_death AS
SELECT
    person_id,
    min(event_date) AS death_date,
    32879 AS death_type_concept_id,
    0 AS cause_concept_id
FROM events
JOIN people USING (patient_key)
JOIN concepts USING (component)
WHERE concepts.kind = 'death'
GROUP BY person_id
ORDER BY person_id;

CREATE VIEW omop_procedure_occurrence AS
SELECT
    row_number() OVER (ORDER BY person_id, event_date, component) AS procedure_occurrence_id,
    person_id,
    concepts.concept_id AS procedure_concept_id,
    event_date AS procedure_date,
    32879 AS procedure_type_concept_id,
    component AS procedure_source_value
FROM events
JOIN people USING (patient_key)
JOIN concepts USING (component)
WHERE concepts.kind = 'procedure'
ORDER BY procedure_occurrence_id;
