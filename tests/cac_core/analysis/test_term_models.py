"""Models of named terms: R's answers, and names for what cannot be estimated."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from cac_core.analysis.design import Patients
from cac_core.analysis.plan import Term, load_plan
from cac_core.analysis.term_models import (
    TermModel,
    complete,
    fit_terms,
    nested_gain,
    plain_design,
    term_test,
)
from cac_core.errors import NotEstimableError
from cac_core.stats.cox import fit_cox
from tests.builders.analyses import linked_events
from tests.builders.golden import answer, numbers, table

SHIPPED = load_plan(None)
FULL = [SHIPPED.sources["dl"].term, *SHIPPED.covariates]


def _cohort(name: str, terms: list[Term]) -> tuple[Patients, np.ndarray, np.ndarray]:
    frame = table(name)
    patients = Patients.from_table(linked_events(frame)[0])
    keep, absent = complete(patients, terms)
    assert not absent
    days, event = frame["mace_days"].to_numpy(float), frame["mace_event"].to_numpy(bool)
    return patients.chosen(keep), days[keep], event[keep]


def _small(**columns: object) -> tuple[Patients, np.ndarray, np.ndarray]:
    """60 patients with events in a third; age and what the test gives."""
    rng = np.random.default_rng(12)
    event = np.arange(60) % 3 == 0
    days = rng.permutation(60) + 1.0
    values = {"age": rng.normal(60, 8, 60), **columns}
    return Patients.from_table(pa.table(values)), days, event


AGE = Term(name="age", label="Age")
GROUP = Term(name="group", label="Group", kind="category", levels=("a", "b", "c"))


def _groups(*counts: int) -> list[str]:
    return [name for name, count in zip("abc", counts, strict=True) for _ in range(count)]


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
def test_the_model_and_the_tests_of_its_terms_equal_those_of_r(cohort: str) -> None:
    patients, days, event = _cohort(cohort, FULL)
    model = fit_terms(patients, FULL, days, event)
    expected = answer(cohort, "cox", "full", "fit")
    kept = numbers(expected["se"]) < 1000
    assert model.fit.coefficients == pytest.approx(numbers(expected["coef"])[kept], abs=1e-8)
    assert model.fit.log_likelihood == pytest.approx(expected["loglik"], rel=1e-10)
    assert model.parameters == expected["df"] == len(kept)
    gain, df, p_value = model.against(expected["loglik_null"])
    assert (gain, df) == (pytest.approx(expected["lr"], rel=1e-8), expected["df"])
    assert p_value == pytest.approx(expected["lr_p"], rel=1e-6)
    calcium, df, p_value = term_test(model, 0, patients)
    added = answer(cohort, "added_value", "dl")
    assert (calcium, df) == (pytest.approx(added["lr"], rel=1e-7), added["lr_df"])
    assert p_value == pytest.approx(added["lr_p"], rel=1e-5)
    base = fit_terms(patients, FULL[1:], days, event)
    assert nested_gain(base, model)[0] == pytest.approx(calcium, rel=1e-9)


def test_the_plain_design_is_that_of_r() -> None:
    patients, days, event = _cohort("paper", FULL)
    design, left_out = plain_design(patients, FULL)
    assert design.shape == (2271, 16) and not left_out
    coefficients = fit_cox(design, days, event).coefficients
    expected = numbers(answer("paper", "cox", "full", "fit", "coef"))
    assert coefficients == pytest.approx(expected, abs=1e-8)


def test_who_lacks_a_term_is_left_out_and_a_term_that_all_lack_does_not_count() -> None:
    patients, _, _ = _small(
        group=["a", None, *_groups(20, 20, 18)], none=pa.nulls(60, pa.float64())
    )
    missing = Term(name="none", label="None")
    keep, absent = complete(patients, [AGE, GROUP, missing])
    assert keep.sum() == 59 and not keep[1]
    assert absent == {"none": "column `none` is missing in all 60 patients"}


def _fitted(counts: tuple[int, int, int], without: str = "", **more: object) -> TermModel:
    groups = np.array(_groups(*counts), object)
    patients, days, event = _small(group=groups.tolist(), **more)
    event = event & ~np.isin(groups, list(without))
    return fit_terms(patients, [AGE, GROUP], days, event)


def test_all_levels_with_events_are_coded_against_the_first() -> None:
    model = _fitted((20, 20, 20))
    assert model.blocks[1].levels == ("b", "c") and not model.blocks[1].missing_levels
    assert model.columns == ((0,), (1, 2)) and not model.dropped
    assert model.events_per_parameter == pytest.approx(20 / 3)


def test_a_level_without_events_has_a_reason_and_the_limit_of_the_likelihood() -> None:
    model = _fitted((20, 20, 20), without="c")
    block = model.blocks[1]
    assert block.levels == ("b",)
    assert block.missing_levels == {"c": "no events in the 20 patients of this level"}
    # The limit: a coefficient sent far down gives the same likelihood.
    far = np.column_stack([model.design, -40.0 * block.excluded])
    offset = _log_likelihood(far @ [*model.fit.coefficients, 1.0], model.days, model.event)
    assert model.fit.log_likelihood == pytest.approx(offset, abs=1e-9)
    assert model.parameters == 3 and len(model.fit.coefficients) == 2


def _log_likelihood(eta: np.ndarray, days: np.ndarray, event: np.ndarray) -> float:
    """Days without ties."""
    return float(
        sum(eta[i] - np.log(np.exp(eta[days >= days[i]]).sum()) for i in np.flatnonzero(event))
    )


def test_a_level_without_patients_is_reported() -> None:
    model = _fitted((30, 30, 0))
    assert model.blocks[1].missing_levels == {"c": "no patients in this level"}
    assert model.parameters == 2


@pytest.mark.parametrize(
    ("counts", "without", "why"),
    [((0, 30, 30), "", "no patients"), ((20, 20, 20), "a", "no events")],
)
def test_without_a_reference_the_others_have_no_ratio_but_the_fit_is_the_same(
    counts: tuple[int, int, int], without: str, why: str
) -> None:
    model = _fitted(counts, without)
    shown = {name: f"{why} in the reference level a" for name in ("b", "c")}
    assert model.blocks[1].missing_levels == shown
    moved = Term(
        name="group", label="Group", kind="category", levels=("a", "b", "c"), reference="b"
    )
    groups = np.array(_groups(*counts), object)
    patients, days, event = _small(group=groups.tolist())
    other = fit_terms(patients, [AGE, moved], days, event & ~np.isin(groups, list(without)))
    assert other.fit.log_likelihood == pytest.approx(model.fit.log_likelihood, rel=1e-12)
    assert other.blocks[1].levels == ("c",)


def test_the_reference_can_be_any_level() -> None:
    groups = _groups(20, 20, 20)
    patients, days, event = _small(group=groups)
    first = fit_terms(patients, [GROUP], days, event)
    last = Term(name="group", label="", kind="category", levels=("a", "b", "c"), reference="c")
    second = fit_terms(patients, [last], days, event)
    b, c = first.fit.coefficients
    assert second.blocks[0].levels == ("a", "b")
    assert second.fit.coefficients == pytest.approx([-c, b - c], abs=1e-8)


def test_constant_and_collinear_terms_are_left_out_and_named() -> None:
    weight = np.random.default_rng(3).normal(80, 10, 60)
    patients, days, event = _small(
        weight=weight, flat=np.full(60, 3.5), pounds=2.2 * weight - 7, group=["a"] * 60
    )
    names = ("weight", "flat", "pounds")
    terms = [AGE, *(Term(name=name, label=name) for name in names), GROUP]
    model = fit_terms(patients, terms, days, event)
    assert [block.term.name for block in model.blocks] == ["age", "weight"]
    assert model.dropped == {
        "flat": "constant in these patients",
        "pounds": "collinear with Age; weight",
        "group": "constant: every patient has a",
    }
    alone = fit_terms(patients, terms[:2], days, event)
    assert np.array_equal(model.fit.coefficients, alone.fit.coefficients)
    design, left_out = plain_design(patients, terms)
    assert set(left_out) == {"flat", "pounds", "group"} and design.shape == (60, 2)


def test_nobody_no_events_and_separation_are_reported() -> None:
    patients, days, _ = _small()
    with pytest.raises(NotEstimableError, match="no events in 60 patients"):
        fit_terms(patients, [AGE], days, np.zeros(60, bool))
    nobody = patients.chosen(np.zeros(60, bool))
    with pytest.raises(NotEstimableError, match="no patients with every covariate"):
        fit_terms(nobody, [AGE], np.zeros(0), np.zeros(0, bool))
    ordered = Patients.from_table(pa.table({"age": -days}))
    with pytest.raises(NotEstimableError, match="separation"):
        fit_terms(ordered, [AGE], days, np.ones(60, bool))


def test_a_term_with_a_spline_has_a_column_per_part() -> None:
    patients, days, event = _small()
    bent = AGE.model_copy(update={"knots": 4})
    model = fit_terms(patients, [bent], days, event)
    assert model.blocks[0].levels == ("linear", "cubic 1", "cubic 2")
    gain, df, _ = nested_gain(fit_terms(patients, [AGE], days, event), model)
    assert df == 2 and gain >= 0
