"""What a question gives an analysis: patients of an outcome, times of competing events."""

from __future__ import annotations

import numpy as np
import pytest

from cac_core.analysis.design import Patients
from cac_core.analysis.estimate import Estimate, Question, guarded, not_estimable
from cac_core.errors import NotEstimableError
from tests.builders.analyses import plan

NEVER = np.inf


def _question(mi: list[float], death: list[float], end: list[float]) -> Question:
    patients = Patients({"follow_up_days": np.array(end)}, len(end))
    return Question("all", patients, plan(), {"mi": np.array(mi), "death": np.array(death)})


def test_the_first_of_component_death_and_end_counts() -> None:
    days, cause = _question(
        mi=[10, 50, NEVER, NEVER, 90],
        death=[NEVER, 20, 30, NEVER, NEVER],
        end=[80, 20, 30, 80, 80],
    ).competing("mi")
    assert days.tolist() == [10, 20, 30, 80, 80]
    # An infarction after death or after the end of observation was not seen.
    assert cause.tolist() == [1, 2, 2, 0, 0]


def test_a_component_on_the_day_of_death_or_on_the_last_day_counts() -> None:
    days, cause = _question(mi=[30, 40], death=[30, NEVER], end=[30, 40]).competing("mi")
    assert days.tolist() == [30, 40] and cause.tolist() == [1, 1]


def test_a_component_that_is_not_linked_is_named() -> None:
    with pytest.raises(NotEstimableError, match="no events of the component `stroke` are linked"):
        _question([1], [2], [3]).competing("stroke")


def test_one_analysis_that_fails_leaves_its_row() -> None:
    base = Estimate("a", "s", population="all", model="dl")

    def half_way() -> list[Estimate]:
        raise NotEstimableError("no events")

    (row,) = guarded(base, half_way)
    assert row == not_estimable(base, "no events")
    assert row.method == "not estimable: no events" and row.model == "dl"
