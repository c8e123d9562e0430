"""The synthetic cohort against the paper's own tables."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from cac_core.phantom.registry.patients import (
    DL_BY_EXPERT,
    HR_DL,
    HR_TPD,
    PAPER_N,
    TPD_COUNTS,
    VISUAL_BY_DL,
    VISUAL_BY_EXPERT,
    YES_BY_DL,
    Cohort,
    draw_cohort,
    joint_readings,
)
from cac_core.stats.agreement import weighted_kappa


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return draw_cohort()


def table(rows: np.ndarray, columns: np.ndarray, n_rows: int, n_columns: int) -> np.ndarray:
    out = np.zeros((n_rows, n_columns), int)
    np.add.at(out, (rows, columns), 1)
    return out


def test_joint_readings_meet_every_published_margin():
    joint = joint_readings()
    assert joint.min() >= 0
    assert joint.sum() == PAPER_N == 2271
    np.testing.assert_array_equal(joint.sum(axis=0), DL_BY_EXPERT)
    np.testing.assert_array_equal(joint.sum(axis=2), VISUAL_BY_DL)
    np.testing.assert_array_equal(joint.sum(axis=1), VISUAL_BY_EXPERT)


def test_counts_are_the_papers(cohort: Cohort):
    np.testing.assert_array_equal(table(cohort.dl, cohort.expert, 4, 4), DL_BY_EXPERT)
    level = np.array([0, 1, 1, 2])[cohort.visual]
    np.testing.assert_array_equal(table(level, cohort.dl, 3, 4), VISUAL_BY_DL)
    assert (cohort.visual == 1).sum() == 28
    for name, counts in YES_BY_DL.items():
        assert tuple(np.bincount(cohort.dl[cohort.yes[name]], minlength=4)) == counts
    edges = np.searchsorted((1, 5, 10), cohort.stress_tpd_pct, side="right")
    assert tuple(np.bincount(edges, minlength=4)) == TPD_COUNTS


def test_agreement_is_that_of_the_abstract(cohort: Cohort):
    """Linear-weighted kappa 0.80 (0.78 to 0.82)."""
    found = weighted_kappa(table(cohort.expert, cohort.dl, 4, 4))
    assert found.value == pytest.approx(0.80, abs=0.005)


def test_scores_lie_in_their_categories(cohort: Cohort):
    for levels, scores in (
        (cohort.dl, cohort.dl_agatston),
        (cohort.expert, cohort.expert_agatston),
    ):
        found = (scores >= 1).astype(int) + (scores > 100) + (scores > 400)
        np.testing.assert_array_equal(found, levels)
    # Supplemental Table 1: median 15, quartiles 0 and 208.
    low, middle, high = np.percentile(cohort.expert_agatston, (25, 50, 75))
    assert low < 1
    assert middle == pytest.approx(15, abs=5)
    assert high == pytest.approx(208, rel=0.1)


def test_events_are_as_many_as_published_and_in_order(cohort: Cohort):
    happened, days = cohort.mace()
    assert 270 <= happened.sum() <= 370
    assert (days >= 1).all()
    early = (cohort.revascularisation_days >= 0) & (cohort.revascularisation_days <= 90)
    assert early.sum() == 52
    dead = cohort.death_days >= 0
    for kind in ("mi", "unstable_angina", "revascularisation"):
        own = getattr(cohort, f"{kind}_days")
        assert (own[dead] <= cohort.death_days[dead]).all()
        assert (own <= cohort.end_days).all()


def test_adjusted_hazards_are_near_the_published():
    """Cox as in Table 2, of ten times as many people, so that chance is small."""
    cohort = draw_cohort(10 * PAPER_N, seed=3)
    happened, days = cohort.mace()
    table = pd.DataFrame({name: yes.astype(float) for name, yes in cohort.yes.items()})
    for level in (1, 2, 3):
        table[f"dl_{level}"] = (cohort.dl == level).astype(float)
    tpd = np.searchsorted((1, 5, 10), cohort.stress_tpd_pct, side="right")
    for level in (1, 2, 3):
        table[f"tpd_{level}"] = (tpd == level).astype(float)
    table["age"], table["bmi"] = cohort.age_years, cohort.bmi_kg_m2
    table["lvef"], table["days"], table["event"] = cohort.stress_lvef_pct, days, happened
    ratios = CoxPHFitter().fit(table, "days", "event").hazard_ratios_
    for level in (1, 2, 3):
        assert ratios[f"dl_{level}"] == pytest.approx(HR_DL[level], rel=0.25)
        assert ratios[f"tpd_{level}"] == pytest.approx(HR_TPD[level], rel=0.2)


def test_same_seed_same_people_other_seed_others():
    one, again, other = draw_cohort(300, seed=5), draw_cohort(300, seed=5), draw_cohort(300, seed=6)
    np.testing.assert_array_equal(one.death_days, again.death_days)
    assert (one.age_years != other.age_years).any()
    assert one.n == 300


def test_an_empty_cohort_is_rejected():
    with pytest.raises(ValueError, match="at least one patient"):
        draw_cohort(0)
