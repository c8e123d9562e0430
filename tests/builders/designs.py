"""Designs of the golden cohorts, column by column as R made them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from cac_core.stats.cox import CoxFit, fit_cox, time_order
from cac_core.stats.partial_likelihood import hazard_steps
from tests.builders.golden import table

CAC = ("0", "1-100", "101-400", ">400")
LEVELS = {
    "cac_category": CAC,
    "expert_cac_category": CAC,
    "visual_level": ("absent", "present", "extensive"),
    "stress_tpd_category": ("<1", "1-<5", "5-<10", ">=10"),
}
BASE = (
    "age_10", "male", "bmi_kg_m2", "hypertension", "diabetes", "dyslipidemia", "family_history",
    "smoking", "stress_tpd_category", "rest_tpd_pct", "stress_lvef_pct",
)  # fmt: skip
SMALL = ("cac_above_100", "age_10", "male", "bmi_kg_m2", "smoking", "stress_tpd_pct")


class Followed(NamedTuple):
    """A design with its follow-up; `names` are R's of the columns, `terms` their columns."""

    x: np.ndarray
    days: np.ndarray
    event: np.ndarray
    names: tuple[str, ...]
    terms: tuple[tuple[int, ...], ...]
    frame: pd.DataFrame

    def without(self, name: str) -> Followed:
        """Without the patients of a level and without its column."""
        at = self.names.index(name)
        keep = self.x[:, at] == 0
        moved = tuple(tuple(c - (c > at) for c in columns if c != at) for columns in self.terms)
        names = tuple(other for other in self.names if other != name)
        return Followed(
            np.delete(self.x, at, axis=1)[keep], self.days[keep], self.event[keep], names, moved,
            self.frame[keep],
        )  # fmt: skip


def prepared(cohort: str) -> pd.DataFrame:
    """The golden table with the columns that R's script adds."""
    frame = table(cohort)
    frame["visual_level"] = frame["visual_grade"].replace("equivocal", "present")
    at = np.searchsorted([1, 5, 10], frame["stress_tpd_pct"], side="right")
    frame["stress_tpd_category"] = np.array(LEVELS["stress_tpd_category"], object)[at]
    frame["male"] = (frame["sex"] == "M").astype(float).where(frame["sex"].notna())
    frame["age_10"] = frame["age_years"] / 10
    frame["cac_above_100"] = (frame["agatston"] > 100).astype(float)
    return frame


def design(
    cohort: str | pd.DataFrame, terms: tuple[str, ...] | list[str], outcome: str = "mace"
) -> Followed:
    """The patients of a cohort who have every term and the outcome."""
    frame = prepared(cohort) if isinstance(cohort, str) else cohort
    frame = frame[frame[[*terms, f"{outcome}_days"]].notna().all(axis=1)]
    columns: list[np.ndarray] = []
    names: list[str] = []
    owned: list[tuple[int, ...]] = []
    for term in terms:
        start = len(columns)
        if term in LEVELS:
            columns += [(frame[term] == level).to_numpy(float) for level in LEVELS[term][1:]]
            names += [f"{term}={level}" for level in LEVELS[term][1:]]
        else:
            columns.append(frame[term].to_numpy(float))
            names.append(term)
        owned.append(tuple(range(start, len(columns))))
    days = frame[f"{outcome}_days"].to_numpy(float)
    event = frame[f"{outcome}_event"].to_numpy(float)
    return Followed(np.stack(columns, axis=1), days, event, tuple(names), tuple(owned), frame)


def baseline(
    fit: CoxFit, x: np.ndarray, days: np.ndarray, event: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Event times, and Efron's cumulative hazard at covariates of zero there."""
    order = time_order(days, event == 1)
    eta = fit.linear_predictor(x)
    times, steps = hazard_steps(np.exp(eta - eta.mean())[order], days[order], event[order] == 1)
    return times, np.cumsum(steps) * np.exp(-eta.mean())


def absolute_risks(
    x: np.ndarray,
    days: np.ndarray,
    event: np.ndarray,
    horizon: float,
    others: np.ndarray | None = None,
) -> np.ndarray:
    """Risks by the horizon from `fit_cox`, of its patients or of others: what refits must equal."""
    fit = fit_cox(x, days, event)
    times, hazard = baseline(fit, x, days, event)
    eta = fit.linear_predictor(x if others is None else others)
    return -np.expm1(-np.append(0.0, hazard)[(times <= horizon).sum()] * np.exp(eta))
