"""The numbers that an investigator asks first: which rows of `estimates` they are."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.analysis.plan import Plan

#: How the time under observation is estimated.
FOLLOW_UP = "reverse Kaplan-Meier"


@dataclass(frozen=True)
class Asked:
    """A number in words, and the row that has it: analysis, statistic and further columns."""

    name: str
    analysis: str
    statistic: str
    columns: dict[str, str] = field(default_factory=dict)


def asked_first(plan: Plan) -> tuple[Asked, ...]:
    """Follow-up, agreement, and the first source's hazard ratio, gain in fit and NRI."""
    source = next(iter(plan.sources))
    label, highest = plan.sources[source].label, plan.sources[source].term.levels[-1]
    everybody = {"population": next(iter(plan.populations))}
    primary = everybody | {"outcome": plan.primary}
    mine = primary | {"model": source}
    agreement = [
        Asked(
            f"linear-weighted kappa, {plan.sources[first].label} and {plan.sources[second].label}",
            "agreement",
            "kappa_linear",
            everybody | {"model": f"{first}:{second}"},
        )
        for first, second in plan.compare[:1]
    ]
    term = {"term": plan.sources[source].term.name, "level": highest}
    return (
        Asked(f"median follow-up by {FOLLOW_UP}, years", "follow_up", "median", primary),
        *agreement,
        Asked(
            f"adjusted hazard ratio, {label} {highest}",
            "cox_multivariable",
            "hazard_ratio",
            mine | term,
        ),
        Asked(f"gain in likelihood-ratio chi-square, {label}", "added_value", "lr_chi2_gain", mine),
        Asked(
            f"net reclassification at {plan.horizon_years:g} years, {label}",
            "added_value",
            "nri",
            mine,
        ),
    )


def headline(estimates: pa.Table, plan: Plan) -> list[dict[str, object]]:
    """Name, value, limits, p, counts and method of each; null where there is no such row."""
    shown = ("value", "ci_low", "ci_high", "p_value", "n", "n_events", "method")
    told: list[dict[str, object]] = []
    for asked in asked_first(plan):
        mask = pc.equal(estimates["analysis"], asked.analysis)
        for column, wanted in {"statistic": asked.statistic, **asked.columns}.items():
            mask = pc.and_kleene(mask, pc.equal(estimates[column], wanted))
        rows = estimates.filter(mask).slice(0, 1).to_pylist()
        row = rows[0] if rows else {}
        told.append({"name": asked.name} | {name: row.get(name) for name in shown})
    return told
