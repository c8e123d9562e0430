-- One row per study of the archive: its chosen series, or the reason why there is none.
WITH dated AS (
    SELECT study_key, min(study_date) AS study_date, min(patient_key) AS patient_key
    FROM instances
    WHERE study_key IS NOT NULL
    GROUP BY study_key
),
per_study AS (
    SELECT
        study_key,
        list_sort(list(instances_digest)) AS all_digests,
        bool_or(Modality = 'CT') AS has_ct,
        count(*) FILTER (WHERE reason = 'outranked') AS n_outranked
    FROM series
    GROUP BY study_key
),
ct_reasons AS (
    SELECT study_key, string_agg(reason || ' ' || n, ', ' ORDER BY reason) AS series_reasons
    FROM (
        SELECT study_key, reason, count(*) AS n
        FROM series
        WHERE NOT selected AND Modality = 'CT'
        GROUP BY ALL
    )
    GROUP BY study_key
),
chosen AS (
    SELECT * FROM series WHERE selected
)
SELECT
    per_study.study_key,
    dated.patient_key,
    dated.study_date,
    chosen.SeriesInstanceUID,
    CASE
        WHEN chosen.study_key IS NOT NULL THEN NULL
        WHEN per_study.has_ct THEN 'no_ctac_series'
        ELSE 'no_ct_series'
    END AS reason,
    chosen.instances_digest AS chosen_digest,
    per_study.all_digests,
    per_study.n_outranked,
    ct_reasons.series_reasons,
    chosen.evidence,
    chosen.ctac_role,
    chosen.Manufacturer,
    chosen.ManufacturerModelName,
    chosen.KVP,
    chosen.XRayTubeCurrent,
    chosen.ConvolutionKernel
FROM per_study
JOIN dated USING (study_key)
LEFT JOIN chosen USING (study_key)
LEFT JOIN ct_reasons USING (study_key)
ORDER BY per_study.study_key
