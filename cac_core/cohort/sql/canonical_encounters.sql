-- Discharge abstracts and ambulatory records: one row per record, diagnosis and procedure.
WITH typed AS (
    SELECT
        *,
        raw.patient_id AS patient,
        date_of('admit_date', raw.admit_date) AS admitted,
        date_of('discharge_date', raw.discharge_date) AS discharged,
        code_of('record_type', raw.record_type) AS kind,
        date_of('procedure_date', raw.procedure_date) AS treated,
        code_of('diagnosis_system', raw.diagnosis_system) AS diagnosis_coding,
        code_of('procedure_system', raw.procedure_system) AS procedure_coding
    FROM raw
)
SELECT
    line AS source_line,
    patient AS patient_id,
    coalesce(admitted, treated) AS admit_date,
    discharged AS discharge_date,
    kind AS record_type,
    -- Danish registries put a D before the letter of ICD-10.
    regexp_replace(
        medical_code_of(diagnosis_code), '^D([A-Z][0-9]{2})', '\1'
    ) AS diagnosis_code,
    type_of('diagnosis_type', diagnosis_type) AS diagnosis_type,
    medical_code_of(procedure_code) AS procedure_code,
    treated AS procedure_date,
    diagnosis_coding AS diagnosis_system,
    procedure_coding AS procedure_system,
    only_problems([
        needed('patient_id', patient),
        CASE WHEN admit_date IS NULL THEN needed('admit_date', treated)
            ELSE needed_of('admit_date', admit_date, admitted, 'unparsed_date')
        END,
        parsed('discharge_date', discharge_date, discharged, 'unparsed_date'),
        parsed('procedure_date', procedure_date, treated, 'unparsed_date'),
        -- Outcome rules depend on the record type, so a record of unknown type cannot be used.
        CASE WHEN record_type IS NOT NULL
            THEN needed_of('record_type', record_type, kind, 'unmapped_code')
        END,
        -- A code of an unknown system could be taken for one of another.
        CASE WHEN diagnosis_system IS NOT NULL THEN needed_of(
            'diagnosis_system', diagnosis_system, diagnosis_coding, 'unmapped_code'
        ) END,
        CASE WHEN procedure_system IS NOT NULL THEN needed_of(
            'procedure_system', procedure_system, procedure_coding, 'unmapped_code'
        ) END,
        ordered('discharge_date', discharged < admitted, 'date_order'),
        ordered('procedure_date', treated < admitted, 'date_order'),
        ordered(
            'admit_date',
            coalesce(admitted, treated) > getvariable('coverage_end'),
            'after_coverage'
        ),
        ordered(
            'admit_date',
            coalesce(admitted, treated) < getvariable('coverage_begin'),
            'before_coverage'
        )
    ]) AS problems
FROM typed
