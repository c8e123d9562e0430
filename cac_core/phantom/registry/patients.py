"""A synthetic cohort that follows the paper's tables: patients, readings and outcomes.

At the paper's size (2271) these counts are exact: Table 1 by deep-learning CAC category, both
tables of Supplemental Table 3, a deep-learning x expert table with linear-weighted kappa 0.80 and
all published margins, perfusion categories of Supplemental Table 4 (both columns together), 28
equivocal visual grades. At other sizes people are sampled with the same shares. Times follow a
Weibull proportional hazards model with the adjusted hazard ratios of Table 2. Times, components of
the outcome and everything else that the paper does not report are assumptions of this module.

Source: Miller et al., J Nucl Med 2023, Tables 1 and 2, Supplemental Tables 1, 3, 4, 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, brentq, milp

from cac_core.categories import CATEGORY_EDGES
from schemas.codes import CAC_CATEGORIES

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Size of the paper's external cohort.
PAPER_N = 2271
#: Deep-learning (rows) by expert (columns) category.
DL_BY_EXPERT = np.array([[766, 127, 13, 2], [175, 377, 39, 5], [18, 38, 265, 33], [3, 6, 45, 359]])
#: Visual estimate (absent, equivocal or present, extensive) by deep-learning and by expert
#: category: Supplemental Table 3.
VISUAL_BY_DL = np.array([[623, 145, 17, 14], [281, 429, 260, 123], [4, 22, 77, 276]])
VISUAL_BY_EXPERT = np.array([[740, 53, 2, 4], [219, 478, 279, 117], [3, 17, 81, 278]])
EQUIVOCAL = 28
#: Counts by deep-learning category: Table 1.
YES_BY_DL = {
    "male": (368, 293, 200, 286),
    "hypertension": (423, 355, 240, 268),
    "diabetes": (136, 146, 111, 140),
    "dyslipidemia": (334, 246, 187, 236),
    "family_history": (453, 305, 155, 205),
    "smoking": (67, 35, 21, 27),
}
#: Lower quartile, median, upper quartile by deep-learning category: Table 1.
AGE_BY_DL = ((55.1, 61.9, 69.3), (57.3, 66.4, 74.2), (65.3, 70.8, 77.3), (66.3, 72.3, 77.9))
BMI_BY_DL = ((25.1, 29.3, 32.6), (25.8, 30.0, 34.4), (25.4, 29.3, 32.9), (25.2, 29.4, 32.4))
#: Stress perfusion below 1, 1 to below 5, 5 to below 10, 10 % and more: Supplemental Table 4.
TPD_COUNTS = (591, 998, 402, 280)
TPD_EDGES_PCT = (0.0, 1.0, 5.0, 10.0, 45.0)
#: Adjusted hazard ratios: Table 2 (deep learning), Results (expert).
HR_DL = (1.0, 1.90, 3.32, 3.58)
HR_EXPERT = (1.0, 2.20, 3.57, 4.05)
HR_TPD = (1.0, 1.22, 1.70, 4.73)
HR_YES = {
    "male": 1.11,
    "hypertension": 0.98,
    "diabetes": 1.28,
    "dyslipidemia": 1.00,
    "family_history": 0.90,
    "smoking": 1.18,
}
HR_AGE_10_YEARS, HR_BMI, HR_LVEF = 1.12, 0.99, 0.99
#: Share of patients with at least one event over the follow-up, and its Weibull shape.
MACE_SHARE, WEIBULL_SHAPE = 320 / PAPER_N, 0.60
#: Quantiles of the planned follow-up in years (0, 1/4, 1/2, 3/4, 1).
FOLLOW_UP_YEARS = (0.4, 2.0, 3.1, 4.4, 6.3)
EARLY_REVASCULARISATIONS, EARLY_DAYS = 52, 90
_DAYS = 365.25
#: Each reading carries part of the effect, so that each alone has its published ratios.
_EFFECT_DL, _EFFECT_EXPERT = 0.53, 0.53
#: Distribution of scores within the categories, for the expert quartiles of Supplemental Table 1
#: (0, 15, 208), and correlation of the two scores of a patient, for r2 near 0.69.
_SCORE_SHAPE = np.array([1.0, 0.47, 1.0, 1.5])
_SHARED = 0.92


@dataclass(frozen=True)
class Cohort:
    """One row per patient; arrays (n,). Days are counted from the scan; -1 is no event.

    Categories are indices into `CAC_CATEGORIES`; `visual` is 0 absent, 1 equivocal, 2 present, 3
    extensive. `end_days` is the end of coverage or observation, unless death is earlier. A
    revascularisation is a CABG if `cabg`, else a PCI.
    """

    dl: Ints
    expert: Ints
    visual: Ints
    dl_agatston: Floats
    expert_agatston: Floats
    age_years: Floats
    bmi_kg_m2: Floats
    yes: dict[str, NDArray[np.bool_]]
    stress_tpd_pct: Floats
    rest_tpd_pct: Floats
    stress_lvef_pct: Floats
    death_days: Ints
    mi_days: Ints
    unstable_angina_days: Ints
    revascularisation_days: Ints
    cabg: NDArray[np.bool_]
    end_days: Ints

    @property
    def n(self) -> int:
        """Number of patients."""
        return len(self.dl)

    def first_event(self, *kinds: str) -> tuple[NDArray[np.bool_], Ints]:
        """Whether any event of the kinds (`death`, `mi`, ...) occurred, and days to event or end.

        Observation ends at death.
        """
        last = np.where(self.death_days >= 0, self.death_days, self.end_days)
        first = np.full(self.n, np.iinfo(np.int64).max)
        for kind in kinds:
            days: Ints = getattr(self, f"{kind}_days")
            first = np.where(days >= 0, np.minimum(first, days), first)
        happened = first <= last
        return happened, np.where(happened, first, last)

    def mace(self) -> tuple[NDArray[np.bool_], Ints]:
        """The paper's composite: death, MI, unstable angina, revascularisation."""
        return self.first_event("death", "mi", "unstable_angina", "revascularisation")


def draw_cohort(n: int = PAPER_N, seed: int = 1) -> Cohort:
    """Draw a cohort; equal size and seed give equal people.

    Raises
    ------
    ValueError
        If `n` is not positive.
    """
    if n < 1:
        raise ValueError(f"a cohort has at least one patient, not {n}")
    rng = np.random.default_rng([seed, n, 31])
    dl, expert, visual = _readings(n, rng)
    visual = _with_equivocal(visual, n, rng)
    dl_agatston, expert_agatston = _scores(dl, expert, rng)
    age = np.clip(_by_quartiles(AGE_BY_DL, dl, rng), 25, 98)
    bmi = np.clip(_by_quartiles(BMI_BY_DL, dl, rng), 15, 70)
    yes = {name: _exact(counts, dl, n, rng) for name, counts in YES_BY_DL.items()}
    tpd_level, stress, rest, lvef = _perfusion(dl, n, rng)
    log_hazard = _log_hazard(dl, expert, tpd_level, age, bmi, lvef, yes)
    end = np.interp(rng.random(n), (0, 0.25, 0.5, 0.75, 1), FOLLOW_UP_YEARS)
    end_days = np.maximum(np.rint(end * _DAYS), 1).astype(np.int64)
    first = _weibull_days(log_hazard, end_days, rng)
    death, mi, angina, revascularised = _components(first, end_days, log_hazard, n, rng)
    return Cohort(
        dl,
        expert,
        visual,
        dl_agatston,
        expert_agatston,
        np.round(age, 1),
        np.round(bmi, 1),
        yes,
        stress,
        rest,
        lvef,
        death,
        mi,
        angina,
        revascularised,
        rng.random(n) < 0.25,
        end_days,
    )


def _log_hazard(
    dl: Ints,
    expert: Ints,
    tpd_level: Ints,
    age: Floats,
    bmi: Floats,
    lvef: Floats,
    yes: dict[str, NDArray[np.bool_]],
) -> Floats:
    """Log hazard of the first event, with the hazard ratios of the paper."""
    hazard: Floats = (
        _EFFECT_DL * np.log(HR_DL)[dl]
        + _EFFECT_EXPERT * np.log(HR_EXPERT)[expert]
        + np.log(HR_TPD)[tpd_level]
        + np.log(HR_AGE_10_YEARS) * (age - 66) / 10
        + np.log(HR_BMI) * (bmi - 29.5)
        + np.log(HR_LVEF) * (lvef - 65)
        + sum(np.log(ratio) * yes[name] for name, ratio in HR_YES.items())
    )
    return hazard


@cache
def joint_readings() -> NDArray[np.int64]:
    """Counts by visual (3), deep-learning (4) and expert (4) category with all published margins.

    The integer table closest (in the sum of absolute differences) to the table without three-way
    interaction that has the three two-way margins; found by integer linear programming.
    """
    fitted = np.ones((3, 4, 4))
    for _ in range(500):
        fitted *= (DL_BY_EXPERT / np.maximum(fitted.sum(axis=0), 1e-12))[None]
        fitted *= (VISUAL_BY_DL / np.maximum(fitted.sum(axis=2), 1e-12))[:, :, None]
        fitted *= (VISUAL_BY_EXPERT / np.maximum(fitted.sum(axis=1), 1e-12))[:, None, :]
    rows, targets = [], []
    for axis, margin in ((0, DL_BY_EXPERT), (2, VISUAL_BY_DL), (1, VISUAL_BY_EXPERT)):
        for index in np.ndindex(margin.shape):
            mask = np.zeros(fitted.shape)
            where = list(index)
            where.insert(axis, slice(None))
            mask[tuple(where)] = 1
            rows.append(np.concatenate([mask.ravel(), np.zeros(48)]))
            targets.append(margin[index])
    eye = np.eye(48)
    found = milp(
        np.concatenate([np.zeros(48), np.ones(48)]),
        integrality=np.concatenate([np.ones(48), np.zeros(48)]),
        bounds=Bounds(0, np.inf),
        constraints=[
            LinearConstraint(np.array(rows), np.array(targets), np.array(targets)),
            LinearConstraint(np.hstack([eye, -eye]), -np.inf, fitted.ravel()),
            LinearConstraint(np.hstack([eye, eye]), fitted.ravel(), np.inf),
        ],
    )
    if found.x is None:
        raise RuntimeError(f"the published margins have no common table: {found.message}")
    return np.asarray(np.rint(found.x[:48]).astype(np.int64).reshape(fitted.shape))


def _readings(n: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    joint = joint_readings()
    if n == PAPER_N:
        cell = rng.permutation(np.repeat(np.arange(joint.size), joint.ravel()))
    else:
        cell = rng.choice(joint.size, n, p=joint.ravel() / joint.sum())
    visual, dl, expert = np.unravel_index(cell, joint.shape)
    return dl.astype(np.int64), expert.astype(np.int64), visual.astype(np.int64)


def _with_equivocal(visual: Ints, n: int, rng: np.random.Generator) -> Ints:
    """Visual grades on four levels: some of `present` are equivocal."""
    levels = np.array([0, 2, 3])[visual]
    present = np.flatnonzero(levels == 2)
    count = EQUIVOCAL if n == PAPER_N else rng.binomial(len(present), EQUIVOCAL / 1093)
    levels[rng.choice(present, count, replace=False)] = 1
    return levels


def _scores(dl: Ints, expert: Ints, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Scores within the categories, correlated between the two readings of a patient."""
    common = rng.standard_normal(len(dl))
    one, hundred, four_hundred = CATEGORY_EDGES
    scores = []
    for category in (dl, expert):
        own = _SHARED * common + np.sqrt(1 - _SHARED**2) * rng.standard_normal(len(dl))
        u = np.clip((np.argsort(np.argsort(own)) + 0.5) / len(own), 0.001, 0.999)
        low = np.array([0.0, one, hundred + 0.1, four_hundred + 0.1])[category]
        high = np.array([one - 0.1, hundred, four_hundred, 4500.0])[category]
        positive = np.where(category > 0, low, 1.0)
        drawn = positive * (high / positive) ** u ** _SCORE_SHAPE[category]
        zero = np.where(u > 0.9, (u - 0.9) * 9, 0.0)
        scores.append(np.asarray(np.round(np.where(category == 0, zero, drawn), 1), np.float64))
    return scores[0], scores[1]


def _by_quartiles(
    quartiles: tuple[tuple[float, float, float], ...], level: Ints, rng: np.random.Generator
) -> Floats:
    """Two half-normal distributions about the median, with the given quartiles."""
    low, middle, high = np.array(quartiles)[level].T
    z = rng.standard_normal(len(level))
    width = np.where(z < 0, middle - low, high - middle) / 0.6745
    return np.asarray(middle + z * width)


def _exact(
    counts: tuple[int, ...], level: Ints, n: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """The number of the paper in each level (sampled with its share at other sizes)."""
    out = np.zeros(n, np.bool_)
    for category, (count, total) in enumerate(zip(counts, DL_BY_EXPERT.sum(axis=1), strict=True)):
        members = np.flatnonzero(level == category)
        wanted = count if n == PAPER_N else rng.binomial(len(members), count / total)
        out[rng.choice(members, wanted, replace=False)] = True
    return out


def _perfusion(dl: Ints, n: int, rng: np.random.Generator) -> tuple[Ints, Floats, Floats, Floats]:
    """Stress category, stress and rest defect, ejection fraction; correlated with calcium."""
    rank = (dl - 1.1) / 1.13
    latent = 0.35 * rank + np.sqrt(1 - 0.35**2) * rng.standard_normal(n)
    share = np.cumsum(TPD_COUNTS) / PAPER_N
    quantile = (np.argsort(np.argsort(latent)) + 0.5) / n
    level = np.minimum(np.searchsorted(share, quantile), 3).astype(np.int64)
    low, high = np.array(TPD_EDGES_PCT[:-1])[level], np.array(TPD_EDGES_PCT[1:])[level]
    u = rng.random(n)
    stress = np.where(level == 3, low + (high - low) * u**3, low + (high - low) * 0.999 * u)
    stress = np.minimum(np.floor(stress * 100) / 100, high - 0.01)
    rest = np.maximum(0.6 * stress - rng.gamma(2.0, 1.4, n), 0)
    lvef = np.clip(69 - 0.75 * stress - 0.4 * rest + rng.normal(0, 9, n), 12, 90)
    return level, stress, np.round(rest, 2), np.round(lvef, 1)


def _weibull_days(log_hazard: Floats, end_days: Ints, rng: np.random.Generator) -> Ints:
    """Days to the first event; the scale gives the paper's share of patients with an event."""
    years = end_days / _DAYS

    def surplus(log_scale: float) -> float:
        cumulative = np.exp(log_scale + log_hazard) * years**WEIBULL_SHAPE
        return float((1 - np.exp(-cumulative)).mean()) - MACE_SHARE

    log_scale = brentq(surplus, -30.0, 10.0)
    exponential = rng.exponential(size=len(log_hazard))
    time = (exponential / np.exp(log_scale + log_hazard)) ** (1 / WEIBULL_SHAPE)
    return np.maximum(np.ceil(np.minimum(time, 200.0) * _DAYS), 1).astype(np.int64)


def _components(
    first: Ints, end_days: Ints, log_hazard: Floats, n: int, rng: np.random.Generator
) -> tuple[Ints, Ints, Ints, Ints]:
    """Days of death, MI, unstable angina and revascularisation: the first event and later ones.

    A share of early first events are revascularisations (52 at the paper's size); most others are
    deaths, as the width of the published intervals of death suggests.
    """
    death, mi, angina, revascularised = (np.full(n, -1, np.int64) for _ in range(4))
    event = first <= end_days
    early = np.flatnonzero(event & (first <= EARLY_DAYS))
    wanted = EARLY_REVASCULARISATIONS if n == PAPER_N else round(0.7 * len(early))
    early_revascularised = rng.choice(early, min(wanted, len(early)), replace=False)
    kind = rng.choice(4, n, p=(0.54, 0.20, 0.06, 0.20))
    kind[early] = rng.choice(3, len(early), p=(0.55, 0.33, 0.12))
    kind[early_revascularised] = 3
    for index, days in enumerate((death, mi, angina, revascularised)):
        chosen = event & (kind == index)
        days[chosen] = first[chosen]
    survived = event & (kind != 0)
    later = first + np.ceil(rng.exponential(9 * _DAYS, n) * np.exp(-0.3 * log_hazard)).astype(int)
    dies = survived & (later <= end_days)
    death[dies] = later[dies]
    # Half of the infarctions are treated within days in the same episode of care, except early
    # ones, as the number of early revascularisations is fixed.
    treated = (mi > EARLY_DAYS) & (revascularised < 0) & (rng.random(n) < 0.5)
    soon = mi + rng.integers(1, 6, n)
    treated &= (soon <= end_days) & ((death < 0) | (soon < death))
    revascularised[treated] = soon[treated]
    return death, mi, angina, revascularised


def category_names(levels: Ints) -> list[str]:
    """Names of categories by index."""
    return [CAC_CATEGORIES[level] for level in levels]
