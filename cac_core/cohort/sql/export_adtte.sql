-- CDISC ADaM basic data structure for time to event: one row per patient and outcome.
SELECT
    $study AS STUDYID,
    rows.patient_key AS USUBJID,
    parameters.code AS PARAMCD,
    parameters.description AS PARAM,
    rows.study_date AS STARTDT,
    CAST(rows.study_date + rows.days AS DATE) AS ADT,
    CAST(rows.days AS DOUBLE) AS AVAL,
    CAST(1 - rows.event AS TINYINT) AS CNSR,
    CASE WHEN rows.event = 1 THEN parameters.description ELSE 'Censored' END AS EVNTDESC
FROM ({rows}) AS rows
JOIN parameters USING (outcome)
WHERE rows.event IS NOT NULL
ORDER BY USUBJID, PARAMCD
