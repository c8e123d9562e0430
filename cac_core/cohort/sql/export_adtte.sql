-- CDISC ADaM basic data structure for time to event: one row per patient and outcome. Of several
-- components on the day of the event, the one that the outcome lists first is named.
WITH rows AS ({rows}),
occurred AS (
    SELECT rows.patient_key, rows.outcome, components.description
    FROM rows
    JOIN events ON events.patient_key = rows.patient_key AND events.days = rows.days
    JOIN components
        ON components.outcome = rows.outcome AND components.component = events.component
    WHERE NOT coalesce(
        components.early_rule <> 'exclude'
        AND components.early_component = components.component
        AND events.days <= components.early_days,
        false
    )
    QUALIFY row_number() OVER (
        PARTITION BY rows.patient_key, rows.outcome ORDER BY components.position
    ) = 1
),
-- Events at which follow-up ended, of outcomes that do not count them.
ended AS (
    SELECT rows.patient_key, rows.outcome, min(endings.description) AS description
    FROM rows
    JOIN events ON events.patient_key = rows.patient_key AND events.days = rows.days
    JOIN endings ON endings.outcome = rows.outcome AND endings.component = events.component
    GROUP BY ALL
)
SELECT
    $study AS STUDYID,
    rows.patient_key AS USUBJID,
    parameters.code AS PARAMCD,
    parameters.description AS PARAM,
    rows.study_date AS STARTDT,
    CAST(rows.study_date + rows.days AS DATE) AS ADT,
    CAST(rows.days AS DOUBLE) AS AVAL,
    CAST(1 - rows.event AS TINYINT) AS CNSR,
    CASE WHEN rows.event = 1 THEN occurred.description ELSE 'Censored' END AS EVNTDESC,
    CASE WHEN rows.event = 0 THEN coalesce(ended.description, 'end of follow-up') END AS CNSDTDSC,
    parameters.number AS PARAMN
FROM rows
JOIN parameters USING (outcome)
LEFT JOIN occurred USING (patient_key, outcome)
LEFT JOIN ended USING (patient_key, outcome)
WHERE rows.event IS NOT NULL
ORDER BY USUBJID, PARAMCD
