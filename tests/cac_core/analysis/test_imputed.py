"""Pooled models: every imputed table counts once, and what was observed stays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from cac_core.analysis.design import Patients
from cac_core.analysis.estimate import Question
from cac_core.analysis.hazards import multivariable
from cac_core.analysis.imputed import imputed_patients
from cac_core.analysis.term_models import fit_terms
from tests.builders.analyses import linked_events, plan
from tests.builders.golden import table

M = 3


@pytest.fixture(scope="module")
def question() -> Question:
    wanted = plan().model_dump(mode="json")
    kept = ("age_years", "bmi_kg_m2", "hypertension", "stress_lvef_pct")
    covariates = [term for term in wanted["covariates"] if term["name"] in kept]
    sources = {"expert": wanted["sources"]["expert"]}
    return Question(
        "all",
        Patients.from_table(_linked()),
        plan(
            missing="multiple_imputation",
            imputations=M,
            covariates=covariates,
            sources=sources,
            compare=[],
            interaction=None,
        ),
    )


def _linked() -> pa.Table:
    # Levels that nobody with an event has would leave no coefficient to pool.
    frame = table("nasty")
    return linked_events(frame[frame["cac_category"] != "1-100"])[0]


def test_observed_values_stay_and_every_gap_is_filled(question: Question) -> None:
    tables = imputed_patients(question, "mace")
    assert len(tables) == M
    before = question.patients
    for column in ("bmi_kg_m2", "stress_lvef_pct", "hypertension", "expert_cac_category"):
        known = before.present(column)
        assert not known.all()
        for filled in tables:
            assert filled.present(column).all()
            assert (filled.columns[column][known] == before.columns[column][known]).all()
    drawn = [filled.columns["bmi_kg_m2"][~before.present("bmi_kg_m2")] for filled in tables]
    assert not np.array_equal(drawn[0], drawn[1])


def test_hazard_ratios_are_the_mean_over_all_tables(question: Question) -> None:
    rows = {
        (row.term, row.level): row
        for row in multivariable(question, "mace")
        if row.model == "expert" and row.ci_low is not None
    }
    _, days, event = question.outcome("mace")
    source = question.plan.sources["expert"].term
    fits = [
        fit_terms(filled, [source, *question.plan.covariates], days, event).fit
        for filled in imputed_patients(question, "mace")
    ]
    coefficients = np.array([fit.coefficients for fit in fits])
    within = np.mean([np.diag(fit.covariance) for fit in fits], axis=0)
    between = coefficients.var(axis=0, ddof=1)
    assert (between > 0).any()
    total = within + (1 + 1 / M) * between
    names = [("expert_cac_category", name) for name in source.levels[1:]]
    names += [(term.name, None) for term in question.plan.covariates]
    assert set(rows) == set(names)
    for at, name in enumerate(names):
        row = rows[name]
        assert np.log(row.value) == pytest.approx(coefficients[:, at].mean(), abs=1e-12)
        # Wider than a normal interval of the pooled error: t, with Rubin's degrees of freedom.
        half = (np.log(row.ci_high) - np.log(row.ci_low)) / 2
        assert half >= 1.9599 * np.sqrt(total[at])
        assert f"{M} imputations" in row.method and row.n == question.patients.n
