"""Cohort reports of small cohorts, as the flow puts them together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import pandas as pd
import pyarrow as pa

from cac_core.analysis.archive_estimates import (
    acquisition,
    certainty_of_scores,
    discrepancy_causes,
    training,
)
from cac_core.analysis.concordance import discrepancies
from cac_core.analysis.plan import Plan
from cac_core.analysis.run import analyse, estimates_table
from cac_core.categories import cac_category
from cac_core.cohort.outcomes import load_outcomes
from cac_core.model.weights import verify_weights
from cac_core.report.cohort.assemble import Assembled, assemble
from cac_core.report.cohort.example_cases import case_section, example_studies
from cac_core.report.cohort.report import Report, ReportFacts
from cac_core.report.cohort.shown_estimates import ShownEstimates
from cac_core.report.cohort.small_cells import hide_small
from cac_core.settings import Settings
from schemas.codes import CAC_CATEGORIES
from schemas.linkage import FLOW
from schemas.results import ESTIMATES
from schemas.score import CATEGORY_CHANCES, SCORES
from tests.builders.analyses import linked_events, plan
from tests.builders.golden import table
from tests.builders.rows import digest, key, preview_row, run_row, score_row

MANIFEST = {"heart": {"training_samples": 480, "validation_samples": 60}}


def scores_of(frame: pd.DataFrame) -> pa.Table:
    """Score rows of the patients, from two scanners, and of two studies without a score."""
    rows = [
        score_row(
            at,
            study_key=row["study_key"],
            patient_key=row["patient_key"],
            agatston=row["agatston"],
            cac_category=row["cac_category"],
            noise_hu=20.0 + at % 17,
            agatston_noncoronary=float(at % 3),
            quality_flags="high_noise" if at % 11 == 0 else "",
            **certain(row["agatston"], at),
            Manufacturer="ACME",
            ManufacturerModelName="CT <one>" if at % 2 else "CT two",
            KVP=120.0,
            XRayTubeCurrent=20.0,
            slice_thickness_mm=5.0,
        )
        for at, row in enumerate(frame.to_dict("records"))
    ]
    failed = score_row("failed", status="failed", reason="timeout", detail="120 s")
    unknown = ("agatston", "cac_category", "noise_hu", "heart_volume_ml", "seconds_model")
    failed |= dict.fromkeys(unknown)
    return SCORES.from_rows([*rows, failed, failed | {"study_key": key("second")}])


def certain(agatston: float, at: int) -> dict[str, Any]:
    """Columns on certainty: the own category has a chance of 70, 80 or 90 %."""
    chance = 0.7 + 0.1 * (at % 3)
    own = CAC_CATEGORIES.index(str(cac_category(agatston)))
    chances = [chance if other == own else (1 - chance) / 3 for other in range(4)]
    review = chance < 0.75
    return {
        **dict(zip(CATEGORY_CHANCES, chances, strict=True)),
        "agatston_low": 0.5 * agatston,
        "agatston_high": 2 * agatston,
        "needs_review": review,
        "review_reasons": "borderline_category" if review else "",
    }


def behind(wanted: Plan) -> dict[str, Any]:
    """Networks and runs that stand behind a report, by the shipped definitions."""
    versions = json.dumps({"python": "3.12.1", "duckdb": "2.0.0", "numpy": "2.4.6"})
    return {
        "networks": verify_weights().networks,
        "rescoring_runs": [
            run_row(n, settings=json.dumps(Settings().public()), versions=versions) for n in (1, 2)
        ],
        "linkage_run": {
            "run_id": "link-1",
            "site": "elsewhere",
            "model_id": "convlstm-test",
            "inputs_digest": digest("inputs"),
            "rows": 900,
            "rows_unusable": 4,
            "core_version": "0.1.0",
            "definition": load_outcomes().model_dump_json(),
            "mapping": json.dumps(
                {
                    "coverage": {"begin": "2010-01-01", "end": "2020-12-31"},
                    "rules": {"window_days": 3, "required": ["age_years", "sex"]},
                }
            ),
            "versions": versions,
        },
        "analysis_run": {
            "run_id": "analysis-1",
            "model_id": "convlstm-test",
            "linkage_run_id": "link-1",
            "inputs_digest": digest("tables"),
            "plan_digest": wanted.digest,
            "core_version": "0.1.0",
            "versions": versions,
        },
    }


def report_of(
    frame: pd.DataFrame,
    wanted: Plan | None = None,
    *,
    hidden: bool = False,
    drop: Sequence[str] = (),
) -> Report:
    """The report of a table like `linked` (see `tests.builders.cohorts`).

    Parameters
    ----------
    drop : columns that `linked` does not have.
    """
    wanted = wanted or plan(resamples=10)
    linked, events = linked_events(frame)
    linked = linked.drop_columns([name for name in drop if name in linked.column_names])
    scores, apart = scores_of(frame), discrepancies(linked, wanted)
    left = [{"patient_key": key(f"left {n}"), "step_number": 4, "step": "known_cad", "n_studies": 1}
            for n in range(7)]  # fmt: skip
    there = [{"patient_key": one, "step_number": 8, "step": "included", "n_studies": 1}
             for one in frame["patient_key"]]  # fmt: skip
    rows = [
        *acquisition(scores, linked["study_key"].to_pylist()),
        *training(MANIFEST),
        *discrepancy_causes(apart, scores),
        *certainty_of_scores(scores, linked),
    ]
    planned = analyse(linked, events, FLOW.from_rows([*left, *there]), wanted)
    estimates = ESTIMATES.validate(
        pa.concat_tables([planned, estimates_table(rows)]).combine_chunks()
    )
    facts = ReportFacts(
        linked,
        apart,
        {"mace": "first of all events"},
        "a test",
        **behind(wanted),
        previews={
            study: [preview_row(study_key=study)]
            for study in example_studies(wanted, linked, apart)
        },
    )
    return Report(
        ShownEstimates(hide_small(estimates) if hidden else estimates), wanted, facts, hidden
    )


def assembled(report: Report) -> Assembled:
    """The files of a report, example cases included."""
    return assemble(report, (case_section,))


@cache
def nasty_report() -> tuple[Report, Assembled]:
    """The report of the golden cohort that is hard on statistics; do not change it."""
    report = report_of(table("nasty"))
    return report, assembled(report)
