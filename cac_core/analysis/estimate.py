"""One row of the table `estimates`, and how a row says what cannot be estimated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

import numpy as np

from cac_core.analysis.design import Patients
from cac_core.analysis.plan import Plan
from cac_core.errors import NotEstimableError
from cac_core.stats.arrays import Bools, Floats, Ints

_NOT_ESTIMABLE = "not estimable"


class HasInterval(Protocol):
    """A statistic with its confidence interval."""

    @property
    def value(self) -> float:
        """The estimate."""

    @property
    def ci_low(self) -> float:
        """Lower limit."""

    @property
    def ci_high(self) -> float:
        """Upper limit."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """One estimated number and what identifies it; fields as the columns of `estimates`."""

    analysis: str
    statistic: str
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    population: str | None = None
    outcome: str | None = None
    model: str | None = None
    term: str | None = None
    level: str | None = None
    at: float | None = None
    n: int | None = None
    n_events: int | None = None
    method: str | None = None

    def estimated(
        self,
        found: HasInterval,
        *,
        statistic: str | None = None,
        method: str | None = None,
        p_value: float | None = None,
    ) -> Estimate:
        """The row with value and interval of a result; `statistic` stays if left out."""
        return replace(
            self,
            statistic=statistic or self.statistic,
            value=found.value,
            ci_low=found.ci_low,
            ci_high=found.ci_high,
            p_value=p_value,
            method=method,
        )

    def row(self) -> dict[str, object]:
        """The row, with null for values that are not finite."""
        return {name: _finite(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Question:
    """The input of every analysis: the patients of one population, and the plan.

    `events` are the days to the first event of each component, shape (n,), infinite without one.
    """

    population: str
    patients: Patients
    plan: Plan
    events: Mapping[str, Floats] = field(default_factory=dict)

    def base(
        self,
        analysis: str,
        statistic: str,
        outcome: str | None = None,
        model: str | None = None,
        term: str | None = None,
    ) -> Estimate:
        """An estimate of this population, without its value."""
        return Estimate(
            analysis,
            statistic,
            population=self.population,
            outcome=outcome,
            model=model,
            term=term,
        )

    def chosen(self, keep: Bools) -> Question:
        """The same for some of the patients."""
        return Question(
            self.population,
            self.patients.chosen(keep),
            self.plan,
            {name: days[keep] for name, days in self.events.items()},
        )

    def outcome(self, name: str) -> tuple[Patients, Floats, Bools]:
        """Patients to whom an outcome applies, their days and events.

        Raises
        ------
        NotEstimableError
            If the outcome is not in the table, or some of its values are invalid; says how many.
        """
        event_name, days_name = f"{name}_event", f"{name}_days"
        if event_name not in self.patients.columns:
            raise NotEstimableError(f"the outcome `{name}` is not linked")
        recorded = self.patients.present(event_name)
        without = recorded & ~self.patients.present(days_name)
        if without.any():
            raise NotEstimableError(f"{int(without.sum())} missing times in `{days_name}`")
        chosen = self.patients.chosen(recorded)
        days, event = chosen.numbers(days_name), chosen.numbers(event_name)
        if (days < 0).any():
            raise NotEstimableError(f"{int((days < 0).sum())} negative times in `{days_name}`")
        wrong = int((~np.isin(event, (0, 1))).sum())
        if wrong:
            raise NotEstimableError(f"{wrong} codes other than 0 and 1 in `{event_name}`")
        return chosen, days, event.astype(np.bool_)

    def competing(self, component: str) -> tuple[Floats, Ints]:
        """Days and cause (0 censored, 1 the component, 2 the competing event), each (n,).

        Raises
        ------
        NotEstimableError
            If the table of events lacks the component.
        """
        competing = self.plan.competing
        unknown = [c for c in (component, competing) if c not in self.events]
        if unknown:
            raise NotEstimableError(f"no events of the component `{unknown[0]}` are linked")
        mine, other = self.events[component], self.events[competing]
        end = self.patients.numbers("follow_up_days")
        for what, days in (("follow_up_days", end), (component, mine), (competing, other)):
            wrong = int((~(days >= 0)).sum())
            if wrong:
                raise NotEstimableError(f"{wrong} missing or negative times of `{what}`")
        cause = np.where(mine <= np.minimum(other, end), 1, np.where(other <= end, 2, 0))
        return np.minimum(np.minimum(mine, other), end), cause.astype(np.int64)


def guarded(base: Estimate, analysis: Callable[[], Iterable[Estimate]]) -> Iterator[Estimate]:
    """Rows of an analysis; if it cannot be done, `base` with the reason in `method`.

    One analysis that fails does not stop the others, and no row lacks its value without a reason.
    Input that the statistics refuse (`ValueError`, singular matrices included) counts as a reason:
    at this point it is a matter of the data in the tables.
    """
    try:
        yield from [row if _is_complete(row) else _without_value(row) for row in analysis()]
    except (NotEstimableError, ValueError) as reason:
        yield not_estimable(base, str(reason))


def not_estimable(base: Estimate, reason: str) -> Estimate:
    """`base` without a value, with the reason."""
    return replace(
        base, value=None, ci_low=None, ci_high=None, method=f"{_NOT_ESTIMABLE}: {reason}"
    )


def _is_complete(row: Estimate) -> bool:
    """Whether a row has its value, or the reason why not."""
    return _finite(row.value) is not None or str(row.method).startswith(_NOT_ESTIMABLE)


def _without_value(row: Estimate) -> Estimate:
    return not_estimable(row, f"these patients give no value ({row.method or row.statistic})")


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
