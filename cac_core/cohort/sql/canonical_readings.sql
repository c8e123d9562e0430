-- Calcium readings by people.
WITH typed AS (
    SELECT
        *,
        text_of(raw.patient_id) AS patient,
        date_of(raw.study_date) AS studied,
        code_of('method', raw.method) AS how,
        number_of('agatston', raw.agatston) AS score,
        number_of('agatston_lm', raw.agatston_lm) AS lm,
        number_of('agatston_lad', raw.agatston_lad) AS lad,
        number_of('agatston_lcx', raw.agatston_lcx) AS lcx,
        number_of('agatston_rca', raw.agatston_rca) AS rca,
        code_of('visual_grade', raw.visual_grade) AS grade
    FROM raw
)
SELECT
    line AS source_line,
    patient AS patient_id,
    studied AS study_date,
    text_of(reader) AS reader,
    how AS method,
    score AS agatston,
    lm AS agatston_lm,
    lad AS agatston_lad,
    lcx AS agatston_lcx,
    rca AS agatston_rca,
    grade AS visual_grade,
    only_problems([
        needed('patient_id', patient),
        needed('reader', text_of(reader)),
        parsed('study_date', study_date, studied, 'unparsed_date'),
        CASE WHEN text_of(study_date) IS NULL THEN needed('study_date', studied) END,
        parsed('method', method, how, 'unmapped_code'),
        parsed('agatston', agatston, score, 'unparsed_number'),
        parsed('agatston_lm', agatston_lm, lm, 'unparsed_number'),
        parsed('agatston_lad', agatston_lad, lad, 'unparsed_number'),
        parsed('agatston_lcx', agatston_lcx, lcx, 'unparsed_number'),
        parsed('agatston_rca', agatston_rca, rca, 'unparsed_number'),
        parsed('visual_grade', visual_grade, grade, 'unmapped_code')
    ]) AS problems
FROM typed
