-- Days to the first event of each outcome, or to the end of observation.
CREATE TABLE outcome_rows AS
WITH people AS (
    SELECT chosen.patient_key, chosen.study_date, observed.end_date
    FROM chosen JOIN observed USING (patient_key)
    WHERE chosen.step = 'included'
),
rules AS (
    SELECT DISTINCT outcome, early_component, early_days, early_rule FROM outcomes
),
later AS (
    SELECT people.*, events.component, events.event_date
    FROM people
    JOIN events ON events.patient_key = people.patient_key
        AND events.event_date > people.study_date
        AND events.event_date <= people.end_date
),
early AS (
    SELECT rules.outcome, later.patient_key, min(later.event_date) AS event_date
    FROM rules
    JOIN later ON later.component = rules.early_component
        AND later.event_date - later.study_date <= rules.early_days
    GROUP BY ALL
),
first AS (
    SELECT outcomes.outcome, later.patient_key, min(later.event_date) AS event_date
    FROM outcomes
    JOIN later USING (component)
    LEFT JOIN early
        ON early.outcome = outcomes.outcome AND early.patient_key = later.patient_key
    WHERE early.event_date IS NULL
        OR early_rule = 'exclude'
        OR NOT (
            -- The early procedure itself is not an event, whether it is ignored or ends follow-up.
            outcomes.component = early_component
            AND later.event_date - later.study_date <= early_days
        )
    GROUP BY ALL
),
ends AS (
    SELECT
        people.*,
        rules.outcome,
        rules.early_rule = 'exclude' AND early.event_date IS NOT NULL AS excluded,
        CASE WHEN rules.early_rule = 'censor'
            THEN least(people.end_date, coalesce(early.event_date, people.end_date))
            ELSE people.end_date
        END AS last_date
    FROM people
    CROSS JOIN rules
    LEFT JOIN early
        ON early.outcome = rules.outcome AND early.patient_key = people.patient_key
)
SELECT
    ends.patient_key,
    ends.outcome,
    CASE WHEN NOT excluded
        THEN CAST(coalesce(first.event_date <= ends.last_date, false) AS TINYINT)
    END AS event,
    CASE WHEN NOT excluded
        THEN CAST(least(coalesce(first.event_date, last_date), last_date) - study_date AS INTEGER)
    END AS days
FROM ends
LEFT JOIN first ON first.outcome = ends.outcome AND first.patient_key = ends.patient_key;
