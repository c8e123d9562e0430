"""Key estimates of a cohort: the rows of `estimates` that an investigator reads first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.analysis.plan import Plan

#: How the time under observation is estimated.
FOLLOW_UP = "reverse Kaplan-Meier"


@dataclass(frozen=True)
class KeyQuantity:
    """A quantity and its row of `estimates`: analysis, statistic and further columns.

    `decimals` are those of the value and both limits, wherever they are shown.
    """

    name: str
    analysis: str
    statistic: str
    columns: dict[str, str] = field(default_factory=dict)
    decimals: int = 2


@dataclass(frozen=True)
class KeyEstimate:
    """A key quantity with its estimate; None if `estimates` has no such row or value."""

    name: str
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    n: int | None = None
    n_events: int | None = None
    method: str | None = None
    decimals: int = 2

    @property
    def shown(self) -> str:
        """The value with its decimals; empty without a value."""
        return "" if self.value is None else f"{self.value:,.{self.decimals}f}"

    @property
    def interval(self) -> str:
        """Limits with the decimals of the value; empty without an interval."""
        if self.ci_low is None or self.ci_high is None:
            return ""
        return f"{self.ci_low:,.{self.decimals}f} to {self.ci_high:,.{self.decimals}f}"


def key_quantities(plan: Plan) -> tuple[KeyQuantity, ...]:
    """Follow-up, agreement, and hazard ratio, gain in fit and NRI of the first source."""
    source = next(iter(plan.sources))
    label, highest = plan.sources[source].label, plan.sources[source].term.levels[-1]
    main = {"population": next(iter(plan.populations))}
    primary = main | {"outcome": plan.primary}
    of_source = primary | {"model": source}
    agreement = [
        KeyQuantity(
            f"linear-weighted kappa, {plan.sources[first].label} and {plan.sources[second].label}",
            "agreement",
            "kappa_linear",
            main | {"model": f"{first}:{second}"},
            3,
        )
        for first, second in plan.compare[:1]
    ]
    term = {"term": plan.sources[source].term.name, "level": highest}
    return (
        KeyQuantity(f"median follow-up by {FOLLOW_UP}, years", "follow_up", "median", primary),
        *agreement,
        KeyQuantity(
            f"adjusted hazard ratio, {label} {highest}",
            "cox_multivariable",
            "hazard_ratio",
            of_source | term,
        ),
        *_gains(plan, label, of_source),
    )


def _gains(plan: Plan, label: str, columns: dict[str, str]) -> tuple[KeyQuantity, KeyQuantity]:
    """Gain in fit and net reclassification by a source."""
    fit = f"gain in likelihood-ratio chi-square, {label}"
    moved = f"net reclassification at {plan.horizon_years:g} years, {label}"
    return (
        KeyQuantity(fit, "added_value", "lr_chi2_gain", columns, 1),
        KeyQuantity(moved, "added_value", "nri", columns, 3),
    )


def key_estimates(estimates: pa.Table, plan: Plan) -> list[KeyEstimate]:
    """The key quantities of a plan with their rows of the table `estimates`."""
    shown = ("value", "ci_low", "ci_high", "p_value", "n", "n_events", "method")
    found = []
    for quantity in key_quantities(plan):
        mask = pc.equal(estimates["analysis"], quantity.analysis)
        for column, wanted in {"statistic": quantity.statistic, **quantity.columns}.items():
            mask = pc.and_kleene(mask, pc.equal(estimates[column], wanted))
        rows = estimates.filter(mask).slice(0, 1).select(shown).to_pylist()
        values = rows[0] if rows else {}
        found.append(KeyEstimate(quantity.name, **values, decimals=quantity.decimals))
    return found


def key_estimates_markdown(rows: Sequence[KeyEstimate]) -> list[str]:
    """Lines of a Markdown table of key estimates."""
    lines = ["| | value | interval |", "|---|---|---|"]
    for row in rows:
        lines.append(f"| {row.name} | {row.shown or '-'} | {row.interval} |")
    return lines
