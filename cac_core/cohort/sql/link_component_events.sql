-- Events of the included patients during follow-up, by component of any outcome.
SELECT
    chosen.patient_key,
    events.component,
    events.event_date,
    CAST(events.event_date - chosen.study_date AS INTEGER) AS days
FROM chosen
JOIN observed USING (patient_key)
JOIN events
    ON events.patient_key = chosen.patient_key
    AND events.event_date > chosen.study_date
    AND events.event_date <= observed.end_date
SEMI JOIN outcomes ON outcomes.component = events.component
WHERE chosen.step = 'included'
ORDER BY ALL
