"""Small counts hidden from readers outside the house: worked by hand."""

from __future__ import annotations

from cac_core.analysis.estimate import Estimate
from cac_core.report.cohort.small_cells import HIDDEN, hide_small
from schemas.results import ESTIMATES


def hidden(*rows: Estimate) -> list[dict]:
    return hide_small(ESTIMATES.from_rows([row.row() for row in rows])).to_pylist()


def level(name: str | None, value: float, n: int = 100, statistic: str = "count") -> Estimate:
    return Estimate("description", statistic, value, term="sex", level=name, population="all", n=n)


def test_a_small_count_goes_with_its_share_and_the_next_smallest() -> None:
    found = hidden(
        level("a", 3), level("b", 40), level("c", 57),
        level("a", 0.03, statistic="share"), level("b", 0.4, statistic="share"),
        level("c", 0.57, statistic="share"),
    )  # fmt: skip
    # The total, 100, is known: with a alone hidden it could be derived, so b is hidden too.
    assert [row["value"] for row in found] == [None, None, 57, None, None, 0.57]
    assert found[0]["method"] == HIDDEN


def test_zero_and_five_are_no_small_counts() -> None:
    found = hidden(level("a", 0), level("b", 5), level("c", 95))
    assert [row["value"] for row in found] == [0, 5, 95]


def test_two_small_counts_protect_each_other() -> None:
    assert [row["value"] for row in hidden(level("a", 4), level("b", 1), level("c", 95))] == [
        None,
        None,
        95,
    ]


def test_few_who_have_it_not_are_hidden_too() -> None:
    yes = hidden(level(None, 97))  # 3 of 100 have it not
    assert yes[0]["value"] is None
    assert hidden(level(None, 95))[0]["value"] == 95


def test_who_remains_tells_no_hidden_step() -> None:
    steps, left = ("a", "b", "c", "d"), (20, 3, 7, 30)
    rows, remaining = [], 100
    for step, count in zip(steps, left, strict=True):
        remaining -= count
        for statistic, value in (("count", count), ("remaining", remaining)):
            rows.append(Estimate("cohort_flow", statistic, float(value), term=step, n=100))
    rows.append(Estimate("cohort_flow", "count", float(remaining), term="included", n=100))
    found = hidden(*rows)
    # 3 is small and 7 protects it; 77 after the first of them would tell both.
    assert [row["value"] for row in found] == [20, 80, None, None, None, 70, 30, 40, 40]


def test_what_few_patients_gave_goes_whatever_it_is() -> None:
    few = Estimate("survival", "survival", 0.5, 0.2, 0.8, population="all", at=365.0, n=4)
    many = Estimate("survival", "survival", 0.9, 0.8, 0.95, population="all", n=60, n_events=3)
    found = hidden(few, many)
    assert found[0]["value"] is None and found[0]["ci_low"] is None and found[0]["n"] is None
    assert found[1]["value"] == 0.9 and found[1]["n"] == 60 and found[1]["n_events"] is None


def test_words_of_a_method_tell_no_small_count() -> None:
    few = "not estimable: no events in the 3 patients of this level; p of the term, df 3"
    many = "not estimable: no events in the 30 patients of this level; df 3"
    rows = hidden(*(Estimate("cox_multivariable", "hazard_ratio", method=shown)
                    for shown in (few, many, "not estimable: 2 missing times in `mace_days`",
                                 "not estimable: too few events (4) for 16 terms")))  # fmt: skip
    assert [row["method"] for row in rows] == [
        "not estimable: no events in the few patients of this level; p of the term, df 3",
        many,
        "not estimable: a few missing times in `mace_days`",
        "not estimable: too few events (a few) for 16 terms",
    ]


def test_a_small_number_of_events_cannot_be_found_from_events_per_parameter() -> None:
    shown = "Cox, Efron ties; only 0.2 events per parameter"
    ratio = Estimate("cox_multivariable", "hazard_ratio", 2.0, n=400, n_events=3, method=shown)
    share = Estimate("cox_multivariable", "events_per_parameter", 0.1875, n=400, n_events=3)
    found = hidden(ratio, share)
    assert found[0]["value"] == 2.0 and "0.2" not in found[0]["method"]
    assert "events per parameter" in found[0]["method"]  # the ratio keeps its mark
    assert found[1]["value"] is None and found[1]["method"] == HIDDEN
    enough = Estimate("cox_multivariable", "hazard_ratio", 2.0, n=400, n_events=5, method=shown)
    assert hidden(enough)[0]["method"] == shown
