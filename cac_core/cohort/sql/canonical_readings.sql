-- Calcium readings by human readers.
WITH typed AS (
    SELECT
        *,
        raw.patient_id AS patient,
        date_of('study_date', raw.study_date) AS studied,
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
    reader AS reader,
    how AS method,
    score AS agatston,
    lm AS agatston_lm,
    lad AS agatston_lad,
    lcx AS agatston_lcx,
    rca AS agatston_rca,
    grade AS visual_grade,
    only_problems([
        needed('patient_id', patient),
        needed('reader', reader),
        needed_of('study_date', study_date, studied, 'unparsed_date'),
        needed_of('method', method, how, 'unmapped_code'),
        measured('agatston', agatston, score),
        measured('agatston_lm', agatston_lm, lm),
        measured('agatston_lad', agatston_lad, lad),
        measured('agatston_lcx', agatston_lcx, lcx),
        measured('agatston_rca', agatston_rca, rca),
        parsed('visual_grade', visual_grade, grade, 'unmapped_code')
    ]) AS problems
FROM typed
