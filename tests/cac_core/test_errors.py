"""Errors survive pickling, and say what to do."""

from __future__ import annotations

import pickle

import pytest

from cac_core.errors import CacError, StudyError, UsageError, WeightsError
from schemas.codes import StudyReason
from schemas.table import InvalidTableError


@pytest.mark.parametrize(
    "error",
    [
        CacError("What.", "Hint.", 3),
        UsageError("What.", "Hint."),
        WeightsError("What."),
        StudyError(StudyReason.NO_HEART, "12 ml", rejected=False),
        InvalidTableError("scores", ("agatston: ge (1)",)),
    ],
)
def test_pickles(error: Exception) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_exit_codes() -> None:
    assert CacError("a").exit_code == 1
    assert UsageError("a").exit_code == 2
    assert WeightsError("a").exit_code == 1


def test_texts() -> None:
    assert str(CacError("Found.", "Do this.")) == "Found. Do this."
    assert str(StudyError(StudyReason.NO_HEART)) == StudyReason.NO_HEART.value
