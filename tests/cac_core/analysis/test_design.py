"""Levels, populations and splines: columns of patients become designs, or a reason why not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cac_core.analysis.design import (
    Patients,
    has_term,
    indicators,
    level_names,
    levels_of,
    members,
    numbers_of,
    spline_basis,
)
from cac_core.analysis.plan import Population, Term, load_plan
from cac_core.errors import NotEstimableError
from tests.builders.golden import answer, numbers, table


def _patients(**columns: list[object]) -> Patients:
    return Patients.from_table(pa.table(columns))


def _term(name: str) -> Term:
    shipped = load_plan(None)
    terms = [*shipped.covariates, *(source.term for source in shipped.sources.values())]
    return next(term for term in terms if term.name == name)


def test_a_table_gives_numbers_and_texts_and_leaves_the_rest_out() -> None:
    patients = Patients.from_table(
        pa.table(
            {
                "age": pa.array([61.5, None, 70.0]),
                "count": pa.array([1, 0, None], pa.int64()),
                "sex": pa.array(["M", None, "F"]),
                "day": pa.array([1, 2, 3], pa.date32()),
            }
        )
    )
    assert patients.n == 3 and set(patients.columns) == {"age", "count", "sex"}
    assert np.array_equal(patients.numbers("count"), [1, 0, np.nan], equal_nan=True)
    assert patients.texts("sex").tolist() == ["M", None, "F"]
    assert patients.present("age").tolist() == [True, False, True]
    assert patients.present("sex").tolist() == [True, False, True]
    assert patients.present_in("age", np.array([True, False, True]))
    assert not patients.present_in("age", np.array([True, True, False]))
    assert not patients.present_in("height", np.array([True, False, False]))
    assert patients.chosen(np.array([False, True, True])).numbers("age")[1] == 70.0


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda p: p.numbers("sex"), "column `sex` holds texts, not numbers"),
        (lambda p: p.texts("age"), "column `age` holds numbers, not texts"),
        (lambda p: p.numbers("height"), "there is no column `height`"),
        (lambda p: p.present("height"), "there is no column `height`"),
    ],
)
def test_a_column_of_the_wrong_kind_is_named(call, reason: str) -> None:
    with pytest.raises(NotEstimableError, match=reason):
        call(_patients(age=[60.0], sex=["M"]))


@pytest.mark.parametrize(
    ("value", "level"),
    [(0.0, "<1"), (0.999, "<1"), (1.0, "1 to <5"), (4.99, "1 to <5"), (5.0, "5 to <10"),
     (9.99, "5 to <10"), (10.0, ">=10"), (60.0, ">=10")],
)  # fmt: skip
def test_perfusion_lies_in_the_category_that_its_limit_begins(value: float, level: str) -> None:
    term = _term("stress_tpd_category")
    found = levels_of(_patients(stress_tpd_pct=[value]), term)
    assert level_names(term)[found[0]] == level


def test_a_missing_value_has_no_level() -> None:
    term = _term("stress_tpd_category")
    patients = _patients(stress_tpd_pct=[0.5, None, 12.0])
    assert levels_of(patients, term).tolist() == [0, -1, 3]
    assert has_term(patients, term).tolist() == [True, False, True]


def test_equivocal_counts_as_present() -> None:
    term = _term("visual_grade")
    grades = ["absent", "equivocal", "present", "extensive", None]
    assert levels_of(_patients(visual_grade=grades), term).tolist() == [0, 1, 1, 2, -1]


@pytest.mark.parametrize(
    ("term", "values", "count"),
    [
        ("cac_category", ["0", "1-100", "none", "many", None], 2),
        ("visual_grade", ["absent", "Absent"], 1),
        ("smoking", [0.0, 1.0, 2.0, None], 1),
    ],
)
def test_a_value_of_no_level_is_refused_with_its_column_and_count(term, values, count) -> None:
    with pytest.raises(NotEstimableError) as refused:
        levels_of(_patients(**{term: values}), _term(term))
    expected = f"column `{term}` holds {count} values that are none of its levels"
    assert str(refused.value) == expected


def test_a_binary_term_is_one_where_it_is_positive() -> None:
    patients = _patients(sex=["M", "F", None], smoking=[1, 0, None])
    assert levels_of(patients, _term("sex")).tolist() == [1, 0, -1]
    assert levels_of(patients, _term("smoking")).tolist() == [1, 0, -1]


def test_a_text_that_is_neither_is_missing_not_the_reference() -> None:
    patients = _patients(sex=["M", "F", "X", "", None, "m"])
    assert levels_of(patients, _term("sex")).tolist() == [1, 0, -1, -1, -1, -1]
    assert has_term(patients, _term("sex")).tolist() == [True, True, *[False] * 4]


def test_without_a_named_negative_one_other_text_is_it_and_more_are_refused() -> None:
    term = Term(name="sex", label="Male", kind="binary", positive="M")
    assert levels_of(_patients(sex=["M", "F", None]), term).tolist() == [1, 0, -1]
    assert levels_of(_patients(sex=["M", None]), term).tolist() == [1, -1]
    with pytest.raises(NotEstimableError, match="`sex` holds 2 texts beside `M`; `negative`"):
        levels_of(_patients(sex=["M", "F", "X"]), term)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_a_reading_that_cannot_be_is_refused_with_its_column(value: float) -> None:
    patients = _patients(age_years=[65.0, value])
    for call in (numbers_of, has_term):
        with pytest.raises(NotEstimableError, match="column `age_years` holds 1 values that are"):
            call(patients, _term("age_years"))


def test_numbers_are_in_their_units() -> None:
    found = numbers_of(_patients(age_years=[65.0, None]), _term("age_years"))
    assert found[0] == 6.5 and np.isnan(found[1])


def test_indicators_are_one_in_their_level() -> None:
    found = indicators(np.array([0, 2, 1, 2]), [1, 2])
    assert found.tolist() == [[0, 0], [0, 1], [1, 0], [0, 1]]
    assert indicators(np.array([0, 2]), []).shape == (2, 0)


@given(st.lists(st.one_of(st.none(), st.floats(-5, 200)), min_size=1, max_size=30))
def test_levels_by_cuts_are_those_counted_one_by_one(values) -> None:
    term = _term("stress_tpd_category")
    expected = [-1 if v is None else sum(v >= cut for cut in (1, 5, 10)) for v in values]
    patients = Patients.from_table(pa.table({"stress_tpd_pct": pa.array(values, pa.float64())}))
    assert levels_of(patients, term).tolist() == expected


# -- populations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ([], [0, 1, 2, 3]),
        ([{"column": "sex", "equals": "M"}], [0, 2]),
        ([{"column": "sex", "among": ["F", "M"]}], [0, 1, 2]),
        ([{"column": "age", "at_least": 60.0}], [1, 3]),
        ([{"column": "age", "below": 60.0}], [0]),
        ([{"column": "age", "equals": 60.0}], [1]),
        ([{"column": "age", "at_least": 50.0, "below": 80.0}], [0, 1]),
        ([{"column": "age", "below": 70.0}, {"column": "sex", "equals": "F"}], [1]),
    ],
)
def test_a_population_holds_who_meets_every_condition(where, expected) -> None:
    patients = _patients(age=[50.0, 60.0, None, 80.0], sex=["M", "F", "M", None])
    population = Population.model_validate({"description": "", "where": where})
    assert np.flatnonzero(members(patients, population)).tolist() == expected


# -- splines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cohort", ["paper", "nasty"])
def test_the_basis_is_that_of_rms(cohort: str) -> None:
    expected = answer(cohort, "cox", "spline_age")
    rows = np.array(expected["rows"]) - 1
    want = np.stack([numbers(expected["basis"][name]) for name in ("s1", "s2", "s3")], axis=1)
    basis = spline_basis(table(cohort)["age_years"].to_numpy(float), 4)
    assert basis[rows] == pytest.approx(want, abs=1e-9)


def test_a_clump_at_one_value_leaves_no_place_for_the_knots() -> None:
    # Two scores in five are zero. `rms` moves the first knot to the next value; we refuse.
    with pytest.raises(NotEstimableError, match="knots of the spline coincide"):
        spline_basis(np.log1p(table("paper")["agatston"].to_numpy(float)), 4)


@pytest.mark.parametrize("knots", [3, 4, 5, 6, 7])
def test_beyond_its_outer_knots_a_spline_is_a_line(knots: int) -> None:
    values = np.random.default_rng(4).normal(size=400)
    basis = spline_basis(values, knots)
    assert basis.shape == (400, knots - 1)
    assert np.array_equal(basis[:, 0], values)
    for tail in (np.argsort(values)[:5], np.argsort(values)[-5:]):
        for column in basis.T:
            line = np.polyfit(values[tail], column[tail], 1)
            assert np.polyval(line, values[tail]) == pytest.approx(column[tail], abs=1e-8)
    assert np.linalg.matrix_rank(basis - basis.mean(axis=0)) == knots - 1


def test_too_few_different_values_have_no_spline() -> None:
    with pytest.raises(NotEstimableError, match="too few different values"):
        spline_basis(np.repeat([0.0, 1.0], 50), 4)
