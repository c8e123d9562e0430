"""The methods paragraph: known sentences for a known run; what is not known is a gap."""

from __future__ import annotations

import dataclasses
import json

import pyarrow as pa
from markupsafe import Markup

from cac_core.report.cohort.methods import methods_section
from cac_core.report.cohort.population import step_in_words
from cac_core.report.cohort.report import Report, ReportFacts
from cac_core.report.cohort.sections import ReportSection
from cac_core.report.cohort.shown_estimates import ShownEstimates
from schemas.codes import FlowStep
from schemas.results import ESTIMATES
from tests.builders.analyses import plan
from tests.builders.reports import behind

COUNTS = (
    ("cohort_flow", "known_cad", "count", 7.0, 307, None),
    ("cohort_flow", "included", "count", 300.0, 307, None),
    ("follow_up", None, "median", 3.125, 300, 45),
)


def estimates(rows: tuple[tuple[object, ...], ...] = COUNTS) -> pa.Table:
    names = ("analysis", "term", "statistic", "value", "n", "n_events")
    return ESTIMATES.from_rows(
        dict(zip(names, row, strict=True))
        | ({"population": "all", "outcome": "mace"} if row[0] == "follow_up" else {})
        for row in rows
    )


def report(table: pa.Table, **facts: object) -> Report:
    wanted = plan(resamples=1000)
    return Report(
        ShownEstimates(table), wanted, ReportFacts(pa.table({}), **behind(wanted) | dict(facts))
    )


def text(section: ReportSection) -> list[str]:
    return [
        Markup(part.text).striptags()
        for block in section.blocks
        for part in block.parts
        if part.text is not None
    ]


def test_the_paragraph_of_a_known_run() -> None:
    section = methods_section(report(estimates()))
    assert section.gaps == []
    shown = text(section)
    for sentence in (
        "Agatston scores counted lesions of at least 1 mm\N{SUPERSCRIPT TWO} at or above 130 HU, "
        "joined through 8 neighbours within a slice, weighted by peak attenuation with steps at "
        "200, 300, 400 HU, and scaled by the slice increment over 3 mm. Scans at other than 120 kV "
        "kept the threshold and were flagged.",
        "Scores were linked to the records of site elsewhere by keyed pseudonym and study date, "
        "which could differ by 3 days; the registry has coverage from 2010-01-01 to 2020-12-31. "
        "Patients without age or sex were excluded.",
        "Of 307 patients in the archive or the clinical table, 300 are in the analysis; "
        "exclusions: infarction or revascularisation at or before the scan (7).",
        "MACE: the first of death, myocardial infarction, unstable angina and revascularisation.",
        "Death: the date of death.",
        "Unstable angina: diagnosis codes beginning with ICD-10 I200 (types M, 6), inpatient "
        "records; source: most responsible diagnosis; ICD-10 (WHO, edition 2019) I20.0.",
        "Old coronary disease: diagnosis codes beginning with ICD-10 I252, Z951, Z955; source: "
        "ICD-10 (WHO, edition 2019) I25.2, Z95.1, Z95.5.",
        "Median follow-up was 3.12 years by reverse Kaplan-Meier, with 45 events of the primary "
        "outcome (MACE).",
        "Absolute risk, calibration and net reclassification are at 3 years. The gain in fit is "
        "tested by the likelihood ratio and has no interval. Gains in AUC over all follow-up have "
        "DeLong's intervals; gains in AUC at 3 years, in Harrell's and Uno's c, net "
        "reclassification in all its forms and integrated discrimination improvement have "
        "bootstrap intervals, percentiles of 1,000 resamples of patients with models refitted "
        "in each (seed 2023). Patients with a missing covariate of a model are excluded from that "
        "model. Intervals cover 95 %.",
        "Cumulative incidence of revascularisation, myocardial infarction and unstable angina by "
        "Aalen and Johansen, with death competing, compared by Gray's test. Cause-specific hazard "
        "ratios, with death as censoring, are given with those of the subdistribution by the "
        "model of Fine and Gray with robust standard errors.",
        "Linkage: cac-cohort 0.1.0; duckdb 2.0.0, numpy 2.4.6, python 3.12.1.",
    ):
        assert sentence in shown
    assert "Death: death." not in shown


def test_the_flow_names_the_covariates_that_the_site_requires() -> None:
    shown = step_in_words(report(estimates()), FlowStep.MISSING_COVARIATE)
    assert shown == "a covariate of the plan is missing (age or sex)"


def test_counts_name_their_estimates() -> None:
    made = report(estimates())
    methods_section(made)
    assert {(one["row"], one["column"]) for one in made.numbers.shown} == {
        (0, "value"), (1, "n"), (1, "value"), (2, "value"), (2, "n_events"),
    }  # fmt: skip


def test_other_settings_are_reported() -> None:
    other = plan(resamples=0, missing="multiple_imputation", imputations=7, confidence=0.9,
                 horizon_years=5)  # fmt: skip
    made = dataclasses.replace(report(estimates()), plan=other)
    shown = " ".join(text(methods_section(made)))
    assert "discrimination improvement have no intervals, since the plan has no resamples" in shown
    assert "imputed 7 times" in shown and "cover 90 %" in shown


def test_a_correction_for_optimism_is_reported_where_it_was_asked_for() -> None:
    asked = dataclasses.replace(report(estimates()), plan=plan(resamples=50, optimism=True))
    sentence = "reclassification are also given corrected for optimism (bootstrap, Harrell)"
    assert sentence in " ".join(text(methods_section(asked)))
    assert "optimism" not in " ".join(text(methods_section(report(estimates()))))


def test_a_protocol_with_thresholds_by_tube_voltage() -> None:
    made = report(estimates())
    run = made.facts.rescoring_runs[-1]
    protocol = json.loads(run["settings"])["protocol"] | {"kvp_rule": "table", "threshold_hu": 150}
    run["settings"] = json.dumps({"protocol": protocol})
    shown = " ".join(text(methods_section(made)))
    assert "at or above 150 HU" in shown and "from a table by tube voltage" in shown


def test_nobody_in_the_analysis() -> None:
    rows = (("cohort_flow", "no_follow_up", "count", 5.0, 5, None),
            ("cohort_flow", "included", "count", 0.0, 5, None))  # fmt: skip
    section = methods_section(report(estimates(rows)))
    assert "Cohort: no patients are in the analysis" in section.gaps
    assert "Statistical analysis: follow-up is not estimable" in section.gaps
    assert "0 are in the analysis" in " ".join(text(section))


def test_without_readings_and_with_one() -> None:
    shown = " ".join(text(methods_section(report(estimates()))))
    assert "It is not estimable in this cohort" in shown
    kappa = ESTIMATES.from_rows(
        [{"analysis": "agreement", "population": "all", "model": "dl:expert",
          "statistic": "kappa_linear", "value": 0.8}]
    )  # fmt: skip
    both = pa.concat_tables([estimates(), kappa])
    assert "not estimable in this cohort" not in " ".join(text(methods_section(report(both))))


def test_without_runs_nothing_is_claimed() -> None:
    bare = report(ESTIMATES.empty(), rescoring_runs=[], linkage_run=None, analysis_run=None)
    section = methods_section(bare)
    assert len(section.gaps) >= 7
    assert "HU" not in " ".join(text(section))
