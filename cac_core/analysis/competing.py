"""Components with death as competing event: Gray's test, and the model of Fine and Gray.

Cause-specific hazards describe the mechanism, the subdistribution the incidence in patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from cac_core.analysis.design import levels_of
from cac_core.analysis.estimate import Estimate, Question, guarded, not_estimable
from cac_core.analysis.hazards import fitted
from cac_core.analysis.plan import ScoreSource, Term
from cac_core.analysis.term_models import (
    complete,
    few_events,
    level_sizes,
    reference_row,
    shown_level,
    term_rows,
)
from cac_core.errors import NotEstimableError
from cac_core.stats.competing import fit_fine_gray, gray_test
from cac_core.stats.cox import hazard_ratio


def gray(question: Question, component: str) -> Iterator[Estimate]:
    """Test whether the cumulative incidence of a component differs by category."""
    for model, source in question.plan.sources.items():
        base = question.base("gray_test", "chi2", component, model, source.term.name)
        yield from guarded(base, partial(_gray, question, base, component, source))


def fine_gray(question: Question, component: str) -> Iterator[Estimate]:
    """Subdistribution hazard ratios of a component, adjusted for all covariates."""
    plan = question.plan
    for model, source in plan.sources.items():
        base = question.base("fine_gray", "hazard_ratio", component, model)
        terms = [source.term, *plan.covariates]
        yield from guarded(base, partial(_fine_gray, question, base, component, terms))


def _gray(
    question: Question, base: Estimate, component: str, source: ScoreSource
) -> Iterator[Estimate]:
    days, cause = question.competing(component)
    level = levels_of(question.patients, source.term)
    known = level >= 0
    if not known.any():
        raise NotEstimableError(f"column `{source.term.source}` is missing in all patients")
    test = gray_test(days[known], cause[known], level[known])
    yield replace(
        base,
        value=test.chi2,
        p_value=test.p_value,
        n=int(known.sum()),
        n_events=int((cause[known] == 1).sum()),
        method=f"Gray's test, {question.plan.competing} competing, df {test.df}",
    )


def _fine_gray(
    question: Question, base: Estimate, component: str, terms: Sequence[Term]
) -> Iterator[Estimate]:
    plan = question.plan
    days, cause = question.competing(component)
    keep, _ = complete(question.patients, terms)
    model, patients = fitted(question.patients, terms, days, cause == 1)
    fit = fit_fine_gray(model.design, days[keep], cause[keep], kept=model.kept)
    base = replace(base, n=model.n, n_events=model.n_events)
    method = f"Fine and Gray, {plan.competing} competing, robust"
    method += few_events(model.events_per_parameter)

    def ratio_row(row: Estimate, column: int) -> Estimate:
        ratio = hazard_ratio(fit, column, plan.confidence)
        return row.estimated(ratio, p_value=ratio.p_value, method=method)

    for block, columns in zip(model.blocks, model.columns, strict=True):
        named = replace(base, term=block.term.name)
        yield from reference_row(named, block.term)
        for level, reason in block.missing_levels.items():
            yield not_estimable(replace(named, level=shown_level(block.term, level)), reason)
        yield from term_rows(named, block, columns, ratio_row)
    yield from level_sizes(base, model, patients)
    for name, reason in model.dropped.items():
        yield not_estimable(replace(base, term=name), reason)
