"""Plans: the shipped one is the paper's, and a wrong one is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cac_core.analysis.plan import load_plan, shipped_plan_text
from cac_core.errors import UsageError
from schemas.codes import CAC_CATEGORIES
from schemas.linked import DEFAULT_OUTCOMES, LINKED
from tests.builders.analyses import plan


def test_the_shipped_plan_names_columns_and_categories_that_exist() -> None:
    shipped = load_plan(None)
    columns = {column.name for column in LINKED.columns}
    terms = [*shipped.covariates, *shipped.described, *(s.term for s in shipped.sources.values())]
    assert {term.source for term in terms} <= columns
    assert shipped.sources["dl"].term.levels == tuple(CAC_CATEGORIES)
    assert shipped.outcomes == DEFAULT_OUTCOMES
    assert shipped.resamples == 2000 and shipped.horizon_years == 3


def test_a_copy_of_the_shipped_plan_is_the_shipped_plan(tmp_path: Path) -> None:
    copy = tmp_path / "plan.toml"
    copy.write_text(shipped_plan_text(), encoding="utf-8")
    assert load_plan(copy).digest == load_plan(None).digest
    assert plan(seed=1).digest != plan(seed=2).digest


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("outcomes = [", "not valid TOML"),
        ("colour = 1", "colour"),
        (shipped_plan_text().replace('primary = "mace"', 'primary = "stroke"'), "stroke"),
        (
            shipped_plan_text()
            .replace("resamples = 2000", "resamples = 0")
            .replace("optimism = false", "optimism = true"),
            "optimism is estimated from resamples",
        ),
        (shipped_plan_text().replace("cuts = [1, 5, 10]", "cuts = [5, 1, 10]"), "ascending order"),
        (shipped_plan_text().replace("cuts = [1, 5, 10]", "cuts = [1, 5]"), "4 levels and 2 cuts"),
        (shipped_plan_text().replace('["dl", "expert"]', '["dl", "oracle"]'), "oracle"),
        (shipped_plan_text().replace("resamples = 2000", "resamples = -1"), "resamples"),
        (
            shipped_plan_text().replace('name = "bmi_kg_m2"', 'name = "age_years"'),
            "two covariates have one name",
        ),
    ],
)
def test_a_wrong_plan_is_refused_with_the_place(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=named) as refused:
        load_plan(path)
    assert "\n" not in str(refused.value)


def test_a_missing_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_plan(tmp_path / "none.toml")
