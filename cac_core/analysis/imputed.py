"""The multivariable model over imputed tables, pooled: the plan's `multiple_imputation`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from cac_core.analysis.design import Patients, level_names, levels_of
from cac_core.analysis.estimate import Estimate, Question, not_estimable
from cac_core.analysis.plan import Term
from cac_core.analysis.term_models import (
    TermModel,
    complete,
    few_events,
    fit_terms,
    reference_row,
    shown_level,
    term_rows,
)
from cac_core.errors import NotEstimableError
from cac_core.stats.arrays import Floats
from cac_core.stats.missing import ImputationPlan, Pooled, impute, pool, survival_predictors


def imputed_patients(question: Question, outcome: str) -> list[Patients]:
    """Completed tables of the patients to whom an outcome applies, as many as the plan says.

    Columns are imputed as in `linked`, before they are cut into categories; all covariates, all
    readings and the outcome predict each other.

    Raises
    ------
    NotEstimableError
        If there are too few observed values to impute from.
    """
    plan = question.plan
    patients, days, event = question.outcome(outcome)
    terms = [*(source.term for source in plan.sources.values()), *plan.covariates]
    _, absent = complete(patients, terms)
    there = [term for term in terms if term.name not in absent]
    wanted = ImputationPlan(imputations=plan.imputations, seed=plan.seed)
    try:
        tables = impute(_columns(patients, there), survival_predictors(days, event), wanted)
    except ValueError as fault:
        raise NotEstimableError(str(fault)) from None
    return [_filled(patients, there, table) for table in tables]


def pooled_rows(
    question: Question,
    base: Estimate,
    outcome: str,
    terms: Sequence[Term],
    tables: Callable[[], list[Patients]],
) -> Iterator[Estimate]:
    """Hazard ratios pooled over imputed tables by Rubin's rules."""
    plan = question.plan
    patients, days, event = question.outcome(outcome)
    keep, absent = complete(patients, terms)
    there = [term for term in terms if term.name not in absent]
    models = [fit_terms(table, there, days, event) for table in tables()]
    _require_same_terms(models)
    fits = [model.fit for model in models]
    pooled = pool(
        [fit.coefficients for fit in fits],
        [fit.covariance for fit in fits],
        np.inf,
        plan.confidence,
    )
    base = replace(base, n=patients.n, n_events=int(event.sum()))
    per_parameter = models[0].events_per_parameter
    method = (
        f"Cox, Efron ties; {plan.imputations} imputations of {int((~keep).sum())} incomplete "
        f"patients by chained equations, Rubin's rules, seed {plan.seed}{few_events(per_parameter)}"
    )
    yield replace(base, statistic="events_per_parameter", value=per_parameter, method=method)
    for block, columns in zip(models[0].blocks, models[0].columns, strict=True):
        named = replace(base, term=block.term.name)
        yield from reference_row(named, block.term)
        for level, reason in block.missing_levels.items():
            yield not_estimable(replace(named, level=shown_level(block.term, level)), reason)
        yield from term_rows(named, block, columns, partial(_ratio_row, pooled, method))
    for name, reason in absent.items():
        yield not_estimable(replace(base, term=name), reason)


def _require_same_terms(models: Sequence[TermModel]) -> None:
    """Refuse imputed tables that differ in the terms and levels that can be estimated."""
    names = {tuple((b.term.name, b.levels) for b in model.blocks) for model in models}
    if len(names) > 1 or any(model.dropped for model in models):
        raise NotEstimableError("the imputed tables differ in what can be estimated from them")


def _ratio_row(pooled: Pooled, method: str, row: Estimate, column: int) -> Estimate:
    value, low, high = np.exp(
        [pooled.coefficients[column], pooled.ci_low[column], pooled.ci_high[column]]
    )
    share = 100 * pooled.missing_share[column]
    return replace(
        row,
        value=float(value),
        ci_low=float(low),
        ci_high=float(high),
        p_value=float(pooled.p_values[column]),
        method=f"{method}; {share:.0f} % of the variance from what is missing",
    )


def _columns(patients: Patients, terms: Sequence[Term]) -> dict[str, Floats]:
    """Columns behind the terms as numbers, NaN where missing; of texts the number of the level."""
    columns: dict[str, Floats] = {}
    for term in terms:
        if _is_text(patients, term):
            level = levels_of(patients, term).astype(np.float64)
            columns[term.source] = np.where(level < 0, np.nan, level)
        else:
            columns[term.source] = patients.numbers(term.source)
    return columns


def _filled(patients: Patients, terms: Sequence[Term], table: dict[str, Floats]) -> Patients:
    """The patients with the columns of an imputed table."""
    columns = dict(patients.columns)
    for term in terms:
        values = table[term.source]
        if _is_text(patients, term):
            names = level_names(term) if term.levels else (term.negative or "", str(term.positive))
            columns[term.source] = np.array([names[int(at)] for at in values], dtype=object)
        else:
            columns[term.source] = values
    return Patients(columns, patients.n)


def _is_text(patients: Patients, term: Term) -> bool:
    return patients.columns[term.source].dtype == object
