-- Each scanner compared with all others: share without calcium, median score, noise. `noise_z` is the
-- difference of the median noise in units of the others' spread (interquartile range / 1.349, the
-- standard deviation of a normal distribution). Quantiles, unlike sums, do not depend on row order.
-- The interval of the share of zeros is Wilson's 95 % interval.
WITH scored AS (
    SELECT concat_ws(' ', Manufacturer, ManufacturerModelName) AS scanner, agatston, cac_category,
        noise_hu
    FROM latest
    WHERE status = 'scored' AND model = $model
),
scanners AS (
    SELECT scanner, count(*) AS n,
        count(*) FILTER (WHERE cac_category = '0') AS n_zero,
        count(*) FILTER (WHERE cac_category = '>400') AS n_high,
        median(agatston) AS median_agatston,
        quantile_cont(noise_hu, 0.25) AS noise_q1,
        median(noise_hu) AS noise_median,
        quantile_cont(noise_hu, 0.75) AS noise_q3
    FROM scored
    GROUP BY scanner
),
others AS (
    SELECT scanners.scanner, count(*) AS rest_n,
        count(*) FILTER (WHERE cac_category = '0') AS rest_zero,
        count(*) FILTER (WHERE cac_category = '>400') AS rest_high,
        median(scored.noise_hu) AS rest_noise,
        (quantile_cont(scored.noise_hu, 0.75) - quantile_cont(scored.noise_hu, 0.25)) / 1.349
            AS rest_spread
    FROM scanners
    JOIN scored ON scored.scanner <> scanners.scanner
    GROUP BY scanners.scanner
)
SELECT scanners.*,
    (n_zero + 1.9208 - 1.96 * sqrt(n_zero * (n - n_zero) / n + 0.9604)) / (n + 3.8416) AS zero_low,
    (n_zero + 1.9208 + 1.96 * sqrt(n_zero * (n - n_zero) / n + 0.9604)) / (n + 3.8416) AS zero_high,
    rest_n, rest_zero, rest_high, rest_noise,
    (noise_median - rest_noise) / nullif(rest_spread, 0) AS noise_z
FROM scanners
LEFT JOIN others USING (scanner)
ORDER BY n DESC, scanner
