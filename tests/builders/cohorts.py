"""Analysis tables like `linked`, of the paper's cohort and of one that is hard on statistics.

`python -m tests.builders.cohorts` writes both to `tests/golden`, where R reads them.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd

from cac_core.phantom.registry.patients import Cohort, category_names, draw_cohort

GOLDEN = Path(__file__).parents[1] / "golden"
#: Components in the order in which one of two on the same day counts as the first.
COMPONENTS = ("death", "mi", "unstable_angina", "revascularisation")
VISUAL_GRADES = ("absent", "equivocal", "present", "extensive")
_EARLY_DAYS = 90


def paper_cohort() -> pd.DataFrame:
    """2271 patients whose tables are the paper's; see `linked_frame` for the columns."""
    return linked_frame(draw_cohort(2271, seed=1))


def nasty_cohort() -> pd.DataFrame:
    """300 patients: days in whole months, nobody with score 1-100 has an event, values missing.

    Five smokers (one has an event), one patient after bypass grafting, nobody after PCI.
    """
    cohort = draw_cohort(300, seed=8)
    rng = np.random.default_rng(22)
    frame = linked_frame(cohort, days_per_step=30, without_events=cohort.dl == 1)
    event = np.flatnonzero((frame["mace_event"] == 1) & (cohort.dl == 3))
    smokers = [rng.choice(event), *rng.choice(np.flatnonzero(frame["mace_event"] == 0), 4, False)]
    frame["smoking"] = 0
    frame.loc[smokers, "smoking"] = 1
    frame["prior_cabg"] = 0
    frame.loc[17, "prior_cabg"] = 1
    for column, count in (
        ("bmi_kg_m2", 24),
        ("stress_lvef_pct", 18),
        ("hypertension", 9),
        ("sex", 3),
    ):
        frame.loc[rng.choice(300, count, replace=False), column] = None
    unread = rng.choice(300, 12, replace=False)
    frame.loc[unread, ["expert_agatston", "expert_cac_category"]] = None
    frame.loc[rng.choice(300, 8, replace=False), "visual_grade"] = None
    return frame


def linked_frame(
    cohort: Cohort, days_per_step: int = 1, without_events: np.ndarray | None = None
) -> pd.DataFrame:
    """A cohort with the columns of `linked`, and the days of the first event of each component.

    Parameters
    ----------
    days_per_step : all days are rounded up to a multiple of this.
    without_events : shape (n,), patients whose events are taken away.
    """
    happened = np.ones(cohort.n, bool) if without_events is None else ~without_events

    def steps(days: np.ndarray) -> np.ndarray:
        return np.where(days < 0, -1, -(-days // days_per_step) * days_per_step)

    days = {
        name: np.where(happened, steps(getattr(cohort, f"{name}_days")), -1) for name in COMPONENTS
    }
    end = steps(cohort.end_days)
    end = np.where(days["death"] >= 0, np.minimum(days["death"], end), end)
    days = {
        name: np.where((value >= 0) & (value <= end), value, -1) for name, value in days.items()
    }
    columns: dict[str, object] = {
        "patient_key": [_key("patient", row) for row in range(cohort.n)],
        "study_key": [_key("study", row) for row in range(cohort.n)],
        "age_years": cohort.age_years,
        "sex": np.where(cohort.yes["male"], "M", "F").astype(object),
        "bmi_kg_m2": cohort.bmi_kg_m2,
        **{name: value.astype(int) for name, value in cohort.yes.items() if name != "male"},
        **{name: 0 for name in ("prior_mi", "prior_pci", "prior_cabg")},
        "stress_tpd_pct": cohort.stress_tpd_pct,
        "rest_tpd_pct": cohort.rest_tpd_pct,
        "stress_lvef_pct": cohort.stress_lvef_pct,
        "agatston": cohort.dl_agatston,
        "cac_category": np.array(category_names(cohort.dl), object),
        "expert_agatston": cohort.expert_agatston,
        "expert_cac_category": np.array(category_names(cohort.expert), object),
        "visual_grade": np.array(VISUAL_GRADES, object)[cohort.visual],
        "follow_up_days": end,
    }
    outcomes = {
        "mace": COMPONENTS,
        "death_mi": ("death", "mi"),
        "death": ("death",),
        "mace_no_early_revascularisation": COMPONENTS,
    }
    for outcome, components in outcomes.items():
        event, first = _first(days, components, end)
        columns[f"{outcome}_event"], columns[f"{outcome}_days"] = event.astype(int), first
    frame = pd.DataFrame(columns)
    early = (days["revascularisation"] >= 0) & (days["revascularisation"] <= _EARLY_DAYS)
    for name in ("event", "days"):
        column = f"mace_no_early_revascularisation_{name}"
        frame[column] = frame[column].astype("Int64").mask(early)
    for name in COMPONENTS:
        frame[f"{name}_first_days"] = pd.Series(days[name]).astype("Int64").mask(days[name] < 0)
    frame["first_component"] = _first_component(days, frame["mace_event"].to_numpy(bool))
    return frame


def _first(
    days: dict[str, np.ndarray], components: tuple[str, ...], end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    never = np.iinfo(np.int64).max
    first = np.min([np.where(days[c] < 0, never, days[c]) for c in components], axis=0)
    return first <= end, np.minimum(first, end)


def _first_component(days: dict[str, np.ndarray], event: np.ndarray) -> np.ndarray:
    never = np.iinfo(np.int64).max
    first = np.argmin([np.where(days[c] < 0, never, days[c]) for c in COMPONENTS], axis=0)
    return np.where(event, np.array(COMPONENTS, object)[first], None)


def _key(kind: str, row: int) -> str:
    return blake2b(f"{kind}-{row}".encode(), digest_size=16).hexdigest()


if __name__ == "__main__":
    for name, frame in (("paper", paper_cohort()), ("nasty", nasty_cohort())):
        frame.to_csv(GOLDEN / f"{name}.csv", index=False)
