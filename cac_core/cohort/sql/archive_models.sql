-- Scores by model, and for studies that the current model scored too: how often both have the same
-- category, and how often the current one is higher.
WITH scored AS (SELECT * FROM latest WHERE status = 'scored')
SELECT scored.model,
    count(*) AS n,
    count(*) FILTER (WHERE scored.cac_category = '0') AS n_zero,
    count(*) FILTER (WHERE scored.cac_category = '1-100') AS n_low,
    count(*) FILTER (WHERE scored.cac_category = '101-400') AS n_middle,
    count(*) FILTER (WHERE scored.cac_category = '>400') AS n_high,
    median(scored.agatston) AS median_agatston,
    count(now.study_key) AS n_both,
    count(*) FILTER (WHERE scored.cac_category = now.cac_category) AS n_same,
    count(*) FILTER (WHERE list_position($categories, now.cac_category)
        > list_position($categories, scored.cac_category)) AS n_higher_now,
    max(scored.scored_at) AS scored_last
FROM scored
LEFT JOIN (SELECT * FROM scored WHERE model = $model) AS now
    ON now.study_key = scored.study_key AND scored.model <> $model
GROUP BY scored.model
ORDER BY scored_last, scored.model
