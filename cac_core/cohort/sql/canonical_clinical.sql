-- Patient characteristics at the time of a study. Age can be derived from the birth date, and body
-- mass index from weight and height; these inputs are not kept.
WITH typed AS (
    SELECT
        *,
        raw.patient_id AS patient,
        date_of('study_date', raw.study_date) AS studied,
        date_of('birth_date', raw.birth_date) AS born,
        number_of('age_years', raw.age_years) AS stated_age,
        code_of('sex', raw.sex) AS sex_code,
        number_of('bmi_kg_m2', raw.bmi_kg_m2) AS stated_bmi,
        number_of('weight_kg', raw.weight_kg) AS weight,
        number_of('height_cm', raw.height_cm) AS height,
        yes_no_of('hypertension', raw.hypertension) AS has_hypertension,
        yes_no_of('diabetes', raw.diabetes) AS has_diabetes,
        yes_no_of('dyslipidemia', raw.dyslipidemia) AS has_dyslipidemia,
        yes_no_of('family_history', raw.family_history) AS has_family_history,
        yes_no_of('smoking', raw.smoking) AS is_smoking,
        yes_no_of('prior_mi', raw.prior_mi) AS had_mi,
        yes_no_of('prior_pci', raw.prior_pci) AS had_pci,
        yes_no_of('prior_cabg', raw.prior_cabg) AS had_cabg
    FROM raw
),
derived AS (
    SELECT
        *,
        CASE WHEN born <= studied THEN round((studied - born) / 365.25, 2) END AS computed_age,
        round(weight / (height / 100) ** 2, 2) AS computed_bmi
    FROM typed
)
SELECT
    line AS source_line,
    patient AS patient_id,
    studied AS study_date,
    accession_number AS accession_number,
    coalesce(stated_age, plausible('age_years', computed_age)) AS age_years,
    sex_code AS sex,
    coalesce(stated_bmi, plausible('bmi_kg_m2', computed_bmi)) AS bmi_kg_m2,
    has_hypertension AS hypertension,
    has_diabetes AS diabetes,
    has_dyslipidemia AS dyslipidemia,
    has_family_history AS family_history,
    is_smoking AS smoking,
    had_mi AS prior_mi,
    had_pci AS prior_pci,
    had_cabg AS prior_cabg,
    only_problems([
        needed('patient_id', patient),
        needed_of('study_date', study_date, studied, 'unparsed_date'),
        parsed('birth_date', birth_date, born, 'unparsed_date'),
        CASE WHEN born > studied THEN fault('birth_date', 'before_birth', NULL::VARCHAR, false) END,
        CASE WHEN stated_age IS NULL THEN computed('age_years', computed_age) END,
        measured('age_years', age_years, stated_age),
        parsed('sex', sex, sex_code, 'unmapped_code'),
        CASE WHEN stated_bmi IS NULL THEN computed('bmi_kg_m2', computed_bmi) END,
        measured('bmi_kg_m2', bmi_kg_m2, stated_bmi),
        measured('weight_kg', weight_kg, weight),
        measured('height_cm', height_cm, height),
        parsed('hypertension', hypertension, has_hypertension, 'unmapped_code'),
        parsed('diabetes', diabetes, has_diabetes, 'unmapped_code'),
        parsed('dyslipidemia', dyslipidemia, has_dyslipidemia, 'unmapped_code'),
        parsed('family_history', family_history, has_family_history, 'unmapped_code'),
        parsed('smoking', smoking, is_smoking, 'unmapped_code'),
        parsed('prior_mi', prior_mi, had_mi, 'unmapped_code'),
        parsed('prior_pci', prior_pci, had_pci, 'unmapped_code'),
        parsed('prior_cabg', prior_cabg, had_cabg, 'unmapped_code')
    ]) AS problems
FROM derived
