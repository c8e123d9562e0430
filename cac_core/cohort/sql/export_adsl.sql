-- CDISC ADaM subject level: one row per patient. A registry has no treatment arms, so there are no
-- variables of treatment; race is not in its extracts.
CREATE OR REPLACE TEMP MACRO yes_no(value) AS CASE value WHEN 1 THEN 'Y' WHEN 0 THEN 'N' END;
CREATE OR REPLACE TEMP MACRO level(value, levels) AS
    CAST(nullif(list_position(levels, value), 0) - 1 AS TINYINT);
SELECT
    $study AS STUDYID,
    patient_key AS USUBJID,
    patient_key AS SUBJID,
    $study AS SITEID,
    age_years AS AGE,
    CASE WHEN age_years IS NOT NULL THEN 'YEARS' END AS AGEU,
    coalesce(sex, 'U') AS SEX,
    'NOT REPORTED' AS RACE,
    'Y' AS FASFL,
    study_date AS SCANDT,
    bmi_kg_m2 AS BMIBL,
    yes_no(hypertension) AS HTNFL,
    yes_no(diabetes) AS DIABFL,
    yes_no(dyslipidemia) AS LIPIDFL,
    yes_no(family_history) AS FAMHXFL,
    yes_no(smoking) AS SMOKEFL,
    yes_no(prior_mi) AS PRMIFL,
    yes_no(prior_pci) AS PRPCIFL,
    yes_no(prior_cabg) AS PRCABGFL,
    stress_tpd_pct AS TPDSTR,
    rest_tpd_pct AS TPDREST,
    stress_lvef_pct AS LVEFSTR,
    agatston AS AGATSTN,
    cac_category AS CACCAT,
    level(cac_category, $categories) AS CACCATN,
    p_category_0 AS PCAC0,
    p_category_1_100 AS PCAC1,
    p_category_101_400 AS PCAC101,
    p_category_over_400 AS PCAC401,
    agatston_low AS AGATLOW,
    agatston_high AS AGATHIGH,
    yes_no(CAST(needs_review AS TINYINT)) AS REVIEWFL,
    left(review_reasons, 200) AS REVIEWRS,
    expert_agatston AS EXPAGAT,
    expert_cac_category AS EXPCAT,
    level(expert_cac_category, $categories) AS EXPCATN,
    visual_grade AS VISGRADE,
    level(visual_grade, $grades) AS VISGRADN,
    follow_up_days AS FUDURD
FROM linked
ORDER BY USUBJID
