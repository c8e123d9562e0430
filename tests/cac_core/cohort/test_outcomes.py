"""Outcome definitions: what is accepted, and how a wrong one is reported."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from cac_core.cohort.outcomes import load_outcomes
from cac_core.errors import UsageError
from schemas.linked import DEFAULT_OUTCOMES

SHIPPED = files("cac_core.cohort").joinpath("outcomes.toml").read_text(encoding="utf-8")


def test_the_shipped_outcomes_are_those_of_the_linked_table() -> None:
    outcomes = load_outcomes()
    assert tuple(outcomes.outcome) == DEFAULT_OUTCOMES
    lists = [each for item in outcomes.component.values() for each in item.systems.values()]
    assert len(lists) == 13 and all(each.source for each in lists)
    early = outcomes.outcome["mace_no_early_revascularisation"].early
    assert early is not None
    assert (early.component, early.days, early.rule) == ("revascularisation", 90, "exclude")


@pytest.mark.parametrize(
    ("old", "new", "reported"),
    [
        ('["death", "mi"]', '["death", "stroke"]', "death_mi names `stroke`"),
        ("[outcome.death_mi]", "[outcome.Death-MI]", "use lower-case letters"),
        ('codes = ["I200"]', 'codes = ["I20.0"]', "write `I20.0` in upper case, without"),
        ('codes = ["I200"]', "", "unstable_angina.systems.ICD-10.codes"),
        ("systems.OPS]", "systems.OPSS]", "system `OPSS` is not one of CCI, ICD-10-PCS"),
        ('kind = "death"', 'kind = "procedure"', "needs some"),
        ('rule = "exclude"', 'rule = "forget"', "early.rule"),
        ("days = 90", "days = 0", "early.days"),
        ('kind = "death"', 'kind = "death', "is not valid TOML"),
    ],
)
def test_a_wrong_definition_is_reported_with_the_place(
    old: str, new: str, reported: str, tmp_path: Path
) -> None:
    assert old in SHIPPED
    path = tmp_path / "own.toml"
    path.write_text(SHIPPED.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_outcomes(path)
    assert reported in str(caught.value)
    assert "own.toml" in str(caught.value)
