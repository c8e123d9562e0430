"""Description of the patients by calcium category (Table 1) and outcome (Supplemental Table 4)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from cac_core.analysis.design import Patients, level_names, levels_of, numbers_of
from cac_core.analysis.estimate import Estimate, Question, guarded, not_estimable
from cac_core.analysis.plan import Plan, Term
from cac_core.errors import NotEstimableError
from cac_core.stats.arrays import Ints
from cac_core.stats.describe import (
    GroupTest,
    Summary,
    describe_counts,
    describe_numbers,
    looks_normal,
)

#: Variables by name, and whether they are described as normal.
_Variables = dict[str, tuple[Term, bool]]


@dataclass(frozen=True)
class _Grouping:
    """Groups of patients: their column, the codes (-1 for none) and the names."""

    column: str
    codes: Ints
    names: tuple[str, ...]

    def populations(self, population: str) -> tuple[str, ...]:
        """Names of the whole population and of the groups as populations."""
        return (population, *(f"{population} & {self.column}={name}" for name in self.names))


def described_as_normal(patients: Patients, plan: Plan) -> frozenset[str]:
    """Variables whose values do not depart from normal in the whole cohort.

    Decided once per variable, so that it has the same summary and kind of test in every table.
    """
    found = set()
    for term in _variables(plan).values():
        if term.kind != "numeric" or term.source not in patients.columns:
            continue
        try:
            values = numbers_of(patients, term)
        except NotEstimableError:
            continue  # the description of the variable has the reason
        if looks_normal([values[~np.isnan(values)]], plan.normality_alpha):
            found.add(term.name)
    return frozenset(found)


def description(question: Question, normal: Collection[str]) -> Iterator[Estimate]:
    """Every variable of the plan, by category of each source and by the primary outcome.

    Parameters
    ----------
    normal : variables that are described by mean and SD, see `described_as_normal`.
    """
    plan = question.plan
    variables = {name: (term, name in normal) for name, term in _variables(plan).items()}
    sources = [source.term for source in plan.sources.values()]
    for term in sources:
        base = question.base("description_test", "test", model=term.name)
        yield from guarded(base, partial(_by_source, question, variables, term))
    outcome = f"{plan.primary}_event"
    base = question.base("description_test", "test", model=outcome)
    yield from guarded(base, partial(_by_outcome, question, variables, outcome))


def _variables(plan: Plan) -> dict[str, Term]:
    sources = [source.term for source in plan.sources.values()]
    variables: dict[str, Term] = {}
    for term in (*plan.covariates, *plan.described, *sources):
        variables.setdefault(term.name, term)
    return variables


def _by_source(question: Question, variables: _Variables, term: Term) -> Iterator[Estimate]:
    grouping = _Grouping(term.name, levels_of(question.patients, term), level_names(term))
    yield from _described(question, variables, grouping)


def _by_outcome(question: Question, variables: _Variables, outcome: str) -> Iterator[Estimate]:
    event = question.patients.numbers(outcome)
    known = np.isfinite(event)
    wrong = int((known & ~np.isin(event, (0, 1))).sum())
    if wrong:
        raise NotEstimableError(f"{wrong} codes other than 0 and 1 in `{outcome}`")
    codes = np.where(known, np.nan_to_num(event), -1).astype(np.int64)
    grouping = _Grouping(outcome, codes, ("0", "1"))
    yield from _group_sizes(question, grouping)
    yield from _described(question, variables, grouping)


def _described(
    question: Question, variables: _Variables, grouping: _Grouping
) -> Iterator[Estimate]:
    for term, normal in variables.values():
        if term.name == grouping.column:
            yield from _group_sizes(question, grouping)
            continue
        base = question.base("description_test", "test", model=grouping.column, term=term.name)
        yield from guarded(base, partial(_variable, question, term, grouping, base, normal))


def _group_sizes(question: Question, grouping: _Grouping) -> Iterator[Estimate]:
    n = question.patients.n
    for code, name in enumerate(grouping.names):
        count = int((grouping.codes == code).sum())
        base = question.base("description", "count", term=grouping.column)
        base = replace(base, level=name, n=n, method="patients of all")
        yield replace(base, value=float(count))
        yield replace(base, statistic="share", value=count / n if n else float("nan"))


def _variable(
    question: Question, term: Term, grouping: _Grouping, base: Estimate, normal: bool
) -> Iterator[Estimate]:
    populations = grouping.populations(question.population)
    rows = question.base("description", "", model=grouping.column, term=term.name)
    if term.kind == "numeric":
        found = describe_numbers(
            numbers_of(question.patients, term) * term.per,
            grouping.codes,
            grouping.names,
            normal=normal,
        )
        for population, summary in zip(populations, (found.overall, *found.groups), strict=True):
            yield from _summary_rows(replace(rows, population=population), summary, found.normal)
        yield _test_row(base, found.test)
        return
    names = level_names(term)
    counts = describe_counts(
        levels_of(question.patients, term), names, grouping.codes, grouping.names
    )
    columns = [counts.overall, *zip(*counts.counts, strict=True)]
    missing = (counts.overall_missing, *counts.missing)
    for population, column, absent in zip(populations, columns, missing, strict=True):
        yield from _count_rows(replace(rows, population=population), names, column, absent, term)
    yield _test_row(base, counts.test)


def _summary_rows(base: Estimate, summary: Summary, normal: bool) -> Iterator[Estimate]:
    base = replace(base, n=summary.n)
    values = {"median": summary.median, "q1": summary.q1, "q3": summary.q3}
    method = "the whole cohort departs from normal; quartiles interpolate linearly"
    if normal:
        values = {"mean": summary.mean, "sd": summary.sd}
        method = "the whole cohort does not depart from normal"
    for name, value in values.items():
        yield replace(base, statistic=name, value=value, method=method)
    yield _missing(base, summary.missing)


def _count_rows(
    base: Estimate, names: Sequence[str], column: Sequence[int], missing: int, term: Term
) -> Iterator[Estimate]:
    total = sum(column)
    base = replace(base, n=total)
    for name, count in zip(names, column, strict=True):
        if term.kind == "binary" and name == "0":
            continue
        level = name if term.levels else None
        yield replace(base, statistic="count", level=level, value=float(count))
        share = count / total if total else float("nan")
        yield replace(base, statistic="share", level=level, value=share, method="of those known")
    yield _missing(base, missing)


def _missing(base: Estimate, count: int) -> Estimate:
    return replace(base, statistic="missing", level=None, value=float(count), method="patients")


def _test_row(base: Estimate, test: GroupTest) -> Estimate:
    if test.reason:
        return not_estimable(replace(base, n=test.n), test.reason)
    df = ", ".join(f"{one:g}" for one in test.df)
    method = f"{test.method}, df {df}" if df else test.method
    return replace(base, value=test.statistic, p_value=test.p_value, n=test.n, method=method)
