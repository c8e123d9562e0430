-- Scores by month of the study, for the newest months.
SELECT *
FROM (
    SELECT strftime(date_trunc('month', study_date), '%Y-%m') AS month,
        count(*) AS n,
        count(*) FILTER (WHERE cac_category = '0') AS n_zero,
        count(*) FILTER (WHERE cac_category = '1-100') AS n_low,
        count(*) FILTER (WHERE cac_category = '101-400') AS n_middle,
        count(*) FILTER (WHERE cac_category = '>400') AS n_high,
        median(agatston) AS median_agatston,
        median(noise_hu) AS median_noise_hu
    FROM latest
    WHERE status = 'scored' AND model = $model AND study_date IS NOT NULL
    GROUP BY ALL
    ORDER BY month DESC
    LIMIT $months
)
ORDER BY month
