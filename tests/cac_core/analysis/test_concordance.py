"""Agreement of readings as rows, and the list of patients to look at."""

from __future__ import annotations

import numpy as np
import pytest

from cac_core.analysis.concordance import discrepancies
from cac_core.phantom.registry.patients import DL_BY_EXPERT, VISUAL_BY_DL
from tests.builders.analyses import analysed, found, golden_estimates, linked_events, one, plan
from tests.builders.golden import table


def test_concordance_has_the_counts_the_cohort_was_made_with() -> None:
    rows = found(golden_estimates("paper"), analysis="concordance", statistic="count")
    levels = ("0", "1-100", "101-400", ">400")
    cells = found(rows, model="dl:expert").set_index(["term", "level"])["value"]
    for i, first in enumerate(levels):
        for j, second in enumerate(levels):
            assert cells[first, second] == DL_BY_EXPERT[i, j]
    cells = found(rows, model="visual:dl").set_index(["term", "level"])["value"]
    for i, grade in enumerate(("absent", "present", "extensive")):
        for j, level in enumerate(levels):
            assert cells[grade, level] == VISUAL_BY_DL[i, j]


@pytest.mark.parametrize(
    ("model", "kappa", "low", "high", "same"),
    [
        ("visual:dl", 0.593, 0.566, 0.620, 0.699),
        ("visual:expert", 0.709, 0.686, 0.732, 0.782),
        ("dl:expert", 0.800, 0.783, 0.817, 0.778),
    ],
)
def test_kappas_of_the_papers_tables(
    model: str, kappa: float, low: float, high: float, same: float
) -> None:
    rows = found(golden_estimates("paper"), analysis="agreement", model=model)
    row = one(rows, statistic="kappa_linear")
    got = [round(row[name], 3) for name in ("value", "ci_low", "ci_high")]
    assert got == [kappa, low, high]
    assert round(one(rows, statistic="same_category")["value"], 3) == same


def test_the_first_named_is_compared_with_the_second() -> None:
    rows = found(golden_estimates("paper"), analysis="agreement", model="dl:expert")
    assert round(one(rows, statistic="presence_sensitivity")["value"], 4) == 0.8915
    assert round(one(rows, statistic="presence_specificity")["value"], 4) == 0.7963


def test_sensitivity_and_specificity_have_their_own_denominators() -> None:
    rows = found(golden_estimates("paper"), analysis="agreement", model="dl:expert")
    without = int(DL_BY_EXPERT[:, 0].sum())
    assert one(rows, statistic="presence_sensitivity")["n"] == DL_BY_EXPERT.sum() - without
    assert one(rows, statistic="presence_specificity")["n"] == without


def test_limits_of_agreement_on_three_scales() -> None:
    rows = found(golden_estimates("paper"), analysis="agreement", model="dl:expert")
    frame = table("paper")
    difference = (frame["agatston"] - frame["expert_agatston"]).to_numpy()
    assert one(rows, statistic="bias")["value"] == pytest.approx(difference.mean())
    low = difference.mean() - 1.96 * difference.std(ddof=1)
    row = one(rows, statistic="limit_low")
    assert row["value"] == pytest.approx(low) and row["ci_low"] < low < row["ci_high"]
    for name in ("bias", "limit_low", "limit_high"):
        ratio, log = (one(rows, statistic=f"{name}_{scale}") for scale in ("ratio", "log"))
        for column in ("value", "ci_low", "ci_high"):
            assert ratio[column] == pytest.approx(np.exp(log[column]))


def test_discrepancies_are_those_in_presence_or_two_categories_apart() -> None:
    linked, _ = linked_events(table("paper"))
    apart = discrepancies(linked, plan(compare=[["dl", "expert"]])).to_pandas()
    missed = apart[(apart["compared_category"] == "0") & (apart["reference_category"] != "0")]
    extra = apart[(apart["compared_category"] != "0") & (apart["reference_category"] == "0")]
    # The paper reviewed 142 and 196 such patients.
    assert (len(missed), len(extra)) == (142, 196)
    rest = apart.drop(index=[*missed.index, *extra.index])
    assert (rest["categories_apart"].abs() >= 2).all()
    assert len(rest) == DL_BY_EXPERT[1, 3] + DL_BY_EXPERT[3, 1]
    frame = table("paper").set_index("study_key")
    assert (
        apart["compared_agatston"].to_numpy() == frame.loc[apart["study_key"], "agatston"]
    ).all()


def test_sources_without_a_common_scale_are_reported() -> None:
    wanted = plan().model_dump(mode="json")
    wanted["sources"]["dl"]["grades"] = {}
    estimates = analysed(table("nasty"), plan(sources=wanted["sources"], outcomes=["mace"]))
    rows = found(estimates, analysis="concordance", model="visual:dl")
    assert "does not say which of absent, present, extensive" in rows["method"].item()
