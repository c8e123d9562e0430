"""Cox models: hazard ratios of Table 2 and secondary outcomes, sensitivity and diagnostics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np

from cac_core.analysis.design import Patients
from cac_core.analysis.estimate import Estimate, Question, guarded, not_estimable
from cac_core.analysis.imputed import imputed_patients, pooled_rows
from cac_core.analysis.plan import Term
from cac_core.analysis.term_models import (
    TermModel,
    complete,
    few_events,
    fit_terms,
    level_sizes,
    nested_gain,
    reference_row,
    shown_level,
    term_rows,
    term_test,
)
from cac_core.errors import NotEstimableError
from cac_core.stats.arrays import Bools, Floats
from cac_core.stats.cox import fit_cox, hazard_ratio, likelihood_ratio_test
from cac_core.stats.cox_diagnostics import dfbeta, martingale_residuals, proportional_hazards_test
from cac_core.stats.discrimination import harrell_c

_FIT = "Cox, Efron ties"


def univariable(question: Question, outcome: str) -> Iterator[Estimate]:
    """Models of each covariate and of each source alone, in the patients who have it."""
    plan = question.plan
    sources = [(name, source.term) for name, source in plan.sources.items()]
    for model, term in [*sources, *(("base", term) for term in plan.covariates)]:
        base = question.base("cox_univariable", "hazard_ratio", outcome, model, term.name)
        yield from guarded(base, partial(_cox, question, base, outcome, [term]))


def multivariable(question: Question, outcome: str) -> Iterator[Estimate]:
    """Models of all covariates, without calcium (`base`) and with each source."""
    tables = cache(partial(imputed_patients, question, outcome))
    for model, terms in [("base", question.plan.covariates), *_models(question)]:
        base = question.base("cox_multivariable", "hazard_ratio", outcome, model)
        if question.plan.missing == "multiple_imputation":
            rows = partial(pooled_rows, question, base, outcome, terms, tables)
        else:
            rows = partial(_cox, question, base, outcome, terms)
        yield from guarded(base, rows)


def proportionality(question: Question, outcome: str) -> Iterator[Estimate]:
    """Score tests of proportional hazards in the multivariable models, per term and global."""
    for model, terms in _models(question):
        base = question.base("proportional_hazards", "chi2", outcome, model, "global")
        yield from guarded(base, partial(_proportionality, question, base, outcome, terms))


def influence(question: Question, outcome: str) -> Iterator[Estimate]:
    """Largest influence of one patient on a coefficient, and range of martingale residuals."""
    for model, terms in _models(question):
        base = question.base("influence", "dfbetas_max", outcome, model)
        yield from guarded(base, partial(_influence, question, base, outcome, terms))


def interaction(question: Question, outcome: str) -> Iterator[Estimate]:
    """Joint test of the interaction of calcium with a covariate."""
    plan = question.plan
    other = next((term for term in plan.covariates if term.name == plan.interaction), None)
    if other is None:
        return
    for model, source in plan.sources.items():
        name = f"{source.term.name} x {other.name}"
        base = question.base("interaction", "lr_chi2", outcome, model, name)
        yield from guarded(base, partial(_interaction, question, base, outcome, source.term, other))


def landmark(question: Question, outcome: str) -> Iterator[Estimate]:
    """Landmark analysis: the multivariable model in patients event-free after the first days."""
    if question.plan.landmark_days is None:
        return
    for model, terms in _models(question):
        base = question.base("landmark", "hazard_ratio", outcome, model)
        base = replace(base, at=float(question.plan.landmark_days))
        yield from guarded(base, partial(_landmark, question, base, outcome, terms))


def cause_specific(question: Question, component: str) -> Iterator[Estimate]:
    """Cause-specific hazard ratios of one component, with death as censoring."""
    for model, terms in _models(question):
        base = question.base("cause_specific", "hazard_ratio", component, model)
        yield from guarded(base, partial(_cause_specific, question, base, component, terms))


def splines(question: Question, outcome: str) -> Iterator[Estimate]:
    """Test of curvature: continuous terms as restricted cubic splines in the base model."""
    for term in question.plan.splines:
        base = question.base("spline", "lr_chi2", outcome, "base", term.name)
        yield from guarded(base, partial(_curvature, question, base, outcome, term))


def fitted(
    patients: Patients, terms: Sequence[Term], days: Floats, event: Bools
) -> tuple[TermModel, Patients]:
    """A model in the patients who have all terms, and these patients.

    A term that no patient has is left out and named in `dropped`.
    """
    keep, absent = complete(patients, terms)
    there = [term for term in terms if term.name not in absent]
    if terms and not there:
        raise NotEstimableError("; ".join(absent.values()))
    chosen = patients.chosen(keep)
    model = fit_terms(chosen, there, days[keep], event[keep])
    return replace(model, dropped=absent | model.dropped), chosen


def _models(question: Question) -> list[tuple[str, list[Term]]]:
    plan = question.plan
    return [(name, [source.term, *plan.covariates]) for name, source in plan.sources.items()]


def _cox(
    question: Question, base: Estimate, outcome: str, terms: Sequence[Term]
) -> Iterator[Estimate]:
    patients, days, event = question.outcome(outcome)
    yield from _rows(question, base, *fitted(patients, terms, days, event))


def _landmark(
    question: Question, base: Estimate, outcome: str, terms: Sequence[Term]
) -> Iterator[Estimate]:
    patients, days, event = question.outcome(outcome)
    start = float(base.at or 0)
    later = days > start
    if not later.any():
        raise NotEstimableError(f"nobody is followed beyond day {start:g}")
    model = fitted(patients.chosen(later), terms, days[later], event[later])
    for row in _rows(question, base, *model):
        yield replace(row, method=f"{row.method}; from day {start:g} on")
    yield from level_sizes(base, *model)


def _cause_specific(
    question: Question, base: Estimate, component: str, terms: Sequence[Term]
) -> Iterator[Estimate]:
    days, cause = question.competing(component)
    model = fitted(question.patients, terms, days, cause == 1)
    for row in _rows(question, base, *model):
        yield replace(
            row, method=f"{row.method}; cause-specific, {question.plan.competing} censors"
        )
    yield from level_sizes(base, *model)


def _rows(
    question: Question, base: Estimate, model: TermModel, patients: Patients
) -> Iterator[Estimate]:
    """Rows of a fitted model: a hazard ratio per level, and statistics of the whole model."""
    base = replace(base, n=model.n, n_events=model.n_events)
    method = _FIT + few_events(model.events_per_parameter)

    def ratio_row(row: Estimate, column: int) -> Estimate:
        ratio = hazard_ratio(model.fit, column, question.plan.confidence)
        return row.estimated(ratio, p_value=ratio.p_value, method=method)

    for at, block in enumerate(model.blocks):
        named = replace(base, term=block.term.name)
        yield from reference_row(named, block.term)
        yield from term_rows(named, block, model.columns[at], ratio_row)
        if block.missing_levels:
            _, df, p_value = term_test(model, at, patients)
            for level, reason in block.missing_levels.items():
                row = replace(named, level=shown_level(block.term, level), p_value=p_value)
                yield not_estimable(row, f"{reason}; p of the term by likelihood ratio, df {df}")
    for name, reason in model.dropped.items():
        yield not_estimable(replace(base, term=name), reason)
    yield from _whole_model(base, model, method)


def _whole_model(base: Estimate, model: TermModel, method: str) -> Iterator[Estimate]:
    null = fit_cox(np.zeros((len(model.days), 0)), model.days, model.event)
    value, df, p_value = model.against(null.log_likelihood)
    yield replace(
        base,
        statistic="lr_chi2",
        value=value,
        p_value=p_value,
        method=f"{method}; likelihood ratio against no covariate, df {df}",
    )
    yield replace(
        base, statistic="events_per_parameter", value=model.events_per_parameter, method=method
    )
    yield from guarded(replace(base, statistic="concordance"), partial(_concordance, base, model))


def _concordance(base: Estimate, model: TermModel) -> Iterator[Estimate]:
    found = harrell_c(model.ranking(), model.days, model.event)
    method = f"Harrell's c of the fitted model{'; ' + found.reason if found.reason else ''}"
    yield base.estimated(found, statistic="concordance", method=method)


def _kept(model: TermModel) -> tuple[Floats, Bools]:
    return model.days[model.kept], model.event[model.kept]


def _proportionality(
    question: Question, base: Estimate, outcome: str, terms: Sequence[Term]
) -> Iterator[Estimate]:
    patients, days, event = question.outcome(outcome)
    model, _ = fitted(patients, terms, days, event)
    infinite = [block.infinite for block in model.blocks]
    tests, whole = proportional_hazards_test(
        model.fit,
        model.design[model.kept],
        *_kept(model),
        model.columns,
        infinite=infinite,
        followed=(model.days, model.event),
    )
    base = replace(base, n=model.n, n_events=model.n_events)
    names = [*(block.term.name for block in model.blocks), "global"]
    for name, test, apart in zip(names, (*tests, whole), (*infinite, sum(infinite)), strict=True):
        method = f"score test of a trend with 1 - Kaplan-Meier, df {test.df}"
        if apart:
            method += f", {apart} of them of levels without events, which add nothing to chi-square"
        row = replace(base, term=name, value=test.chi2, p_value=test.p_value, method=method)
        if test.df == apart:
            yield not_estimable(row, "one level alone has events")
        elif np.isfinite(test.chi2):
            yield row
        else:
            yield not_estimable(row, "events at too few times to see a change")


def _influence(
    question: Question, base: Estimate, outcome: str, terms: Sequence[Term]
) -> Iterator[Estimate]:
    patients, days, event = question.outcome(outcome)
    model, _ = fitted(patients, terms, days, event)
    base = replace(base, n=model.n, n_events=model.n_events)
    followed = (model.design[model.kept], *_kept(model))
    moved = np.abs(dfbeta(model.fit, *followed)).max(axis=0) / model.fit.standard_errors
    for block, columns in zip(model.blocks, model.columns, strict=True):
        for level, column in zip(block.levels, columns, strict=True):
            yield replace(
                base,
                term=block.term.name,
                level=shown_level(block.term, level),
                value=float(moved[column]),
                method="largest change of the coefficient were one patient left out, in SE",
            )
    residuals = martingale_residuals(model.fit, *followed)
    for statistic, value in (
        ("martingale_min", residuals.min()),
        ("martingale_max", residuals.max()),
    ):
        yield replace(
            base, statistic=statistic, value=float(value), method="events less expected events"
        )


def _interaction(
    question: Question, base: Estimate, outcome: str, term: Term, other: Term
) -> Iterator[Estimate]:
    patients, days, event = question.outcome(outcome)
    model, _ = fitted(patients, [term, *question.plan.covariates], days, event)
    if any(name in model.dropped for name in (term.name, other.name)):
        raise NotEstimableError("; ".join(model.dropped.values()))
    pairs = _products(model, term, other)
    # Products without patients or without events cannot be estimated.
    usable = [cell for cell in pairs.T if cell.any() and model.event[cell > 0].any()]
    left_out = pairs.shape[1] - len(usable)
    if not usable:
        raise NotEstimableError("no combination of levels has events")
    design = np.concatenate([model.design, np.stack(usable, axis=1)], axis=1)[model.kept]
    larger = fit_cox(design, *_kept(model))
    value, df, p_value = likelihood_ratio_test(model.fit, larger)
    note = f"; {left_out} combinations without events left out" if left_out else ""
    yield replace(
        base,
        value=value,
        p_value=p_value,
        n=model.n,
        n_events=model.n_events,
        method=f"likelihood ratio of the products of levels, df {df}{note}",
    )


def _products(model: TermModel, first: Term, second: Term) -> Floats:
    """Products of the columns of two terms, shape (n, products)."""
    columns = {block.term.name: block.columns for block in model.blocks}
    products = np.einsum("ia,ib->iab", columns[first.name], columns[second.name])
    return np.asarray(products.reshape(len(products), -1))


def _curvature(question: Question, base: Estimate, outcome: str, term: Term) -> Iterator[Estimate]:
    patients, days, event = question.outcome(outcome)
    others = [one for one in question.plan.covariates if one.source != term.source]
    straight = term.model_copy(update={"knots": None})
    keep, absent = complete(patients, [term, *others])
    if absent:
        raise NotEstimableError("; ".join(absent.values()))
    chosen, t, d = patients.chosen(keep), days[keep], event[keep]
    bent = fit_terms(chosen, [term, *others], t, d)
    value, df, p_value = nested_gain(fit_terms(chosen, [straight, *others], t, d), bent)
    yield replace(
        base,
        value=value,
        p_value=p_value,
        n=bent.n,
        n_events=bent.n_events,
        method=f"likelihood ratio against a straight line, df {df}; {term.knots} knots",
    )
