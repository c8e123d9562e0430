"""R's answers to the tables of `tests/golden`; `make_golden.R` there says what each one is."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from tests.builders.cohorts import GOLDEN

COHORTS = ("paper", "nasty")


@cache
def answers(cohort: str) -> dict[str, Any]:
    """Everything that R says of a cohort; do not change what this gives."""
    found: dict[str, Any] = json.loads((GOLDEN / f"{cohort}.json").read_text(encoding="utf-8"))
    return found


def answer(cohort: str, *path: str) -> Any:
    """One answer, by the keys that lead to it, such as `("paper", "cox", "full", "fit")`."""
    found: Any = answers(cohort)
    for key in path:
        found = found[key]
    return found


def numbers(values: Any) -> np.ndarray:
    """Numbers of an answer as floats; what R could not give is NaN."""
    return np.array(values, dtype=float)


@cache
def _table(cohort: str) -> pd.DataFrame:
    # Text, so that categories such as "0" stay words.
    words = {name: str for name in ("cac_category", "expert_cac_category")}
    return pd.read_csv(GOLDEN / f"{cohort}.csv", dtype=words, float_precision="round_trip")


def table(cohort: str) -> pd.DataFrame:
    """The table that R read, a copy for each caller."""
    return _table(cohort).copy()


def rows(cohort: str, numbered: list[int]) -> pd.DataFrame:
    """The rows that an answer numbers (from 1), in its order."""
    return _table(cohort).iloc[np.array(numbered) - 1].reset_index(drop=True)
