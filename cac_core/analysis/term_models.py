"""Cox models of named terms, with the terms and levels that cannot be estimated.

A level without events has a hazard ratio of 0 with an unbounded interval. The likelihood still has
a limit, in which the patients of the level leave the risk sets. The level is reported as not
estimable with the likelihood-ratio p of its term; all other estimates stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import chi2

from cac_core.analysis.design import (
    Patients,
    has_term,
    indicators,
    level_names,
    levels_of,
    numbers_of,
    spline_basis,
)
from cac_core.analysis.estimate import Estimate
from cac_core.analysis.plan import Term
from cac_core.errors import NotEstimableError
from cac_core.stats.arrays import Bools, Floats
from cac_core.stats.cox import (
    CollinearColumnError,
    ConstantColumnError,
    CoxFit,
    comparable,
    fit_cox,
    require_rank,
)

#: Models with fewer events per coefficient say so in `method`.
EVENTS_PER_PARAMETER = 10


@dataclass(frozen=True)
class Block:
    """Columns of one term in a design; `levels` names them, "" for a number.

    `missing_levels` maps a level without hazard ratio to the reason; `excluded` marks patients
    whose hazard is 0 in the limit. `infinite` counts coefficients without a column because they
    are infinite: a term has one coefficient less than levels with patients, whichever level is
    the reference.
    """

    term: Term
    levels: tuple[str, ...]
    columns: Floats
    missing_levels: dict[str, str]
    excluded: Bools
    infinite: int = 0

    @property
    def parameters(self) -> int:
        """Coefficients of the term, infinite ones included."""
        return int(self.columns.shape[1]) + self.infinite


@dataclass(frozen=True)
class TermModel:
    """A fitted model of terms; `columns[i]` are the columns of the design of `blocks[i]`.

    `dropped` maps a term that is not in the model to the reason.
    """

    blocks: tuple[Block, ...]
    columns: tuple[tuple[int, ...], ...]
    dropped: dict[str, str]
    fit: CoxFit
    design: Floats
    days: Floats
    event: Bools
    kept: Bools
    n: int
    n_events: int

    @property
    def events_per_parameter(self) -> float:
        """Events per coefficient; below ten, estimates are unstable (Peduzzi 1995)."""
        return self.n_events / max(1, self.parameters)

    @property
    def parameters(self) -> int:
        """Coefficients, including the infinite ones of levels without events."""
        return sum(block.parameters for block in self.blocks)

    def ranking(self) -> Floats:
        """Linear predictors as ranks of risk, shape (n,).

        Patients of a level without events come last: their hazard is 0 in the limit.
        """
        eta = comparable(self.fit.linear_predictor(self.design))
        if self.kept.any():
            eta[~self.kept] = eta[self.kept].min() - 1
        return eta

    def against(self, log_likelihood: float, parameters: int = 0) -> tuple[float, int, float]:
        """Likelihood-ratio chi-square, df and p against a smaller model of the same patients."""
        value = 2 * (self.fit.log_likelihood - log_likelihood)
        df = self.parameters - parameters
        return value, df, float(chi2.sf(max(value, 0.0), df)) if df else float("nan")


def shown_level(term: Term, level: str) -> str | None:
    """The level of a row of `estimates`: none for a binary term, which is 1 against 0."""
    return level if term.levels else None


def term_rows(
    base: Estimate,
    block: Block,
    columns: Sequence[int],
    row_of: Callable[[Estimate, int], Estimate],
) -> Iterator[Estimate]:
    """Rows of the levels of a term that have an estimate.

    Parameters
    ----------
    base : a row of the term, without level.
    columns : columns of the design that belong to `block`.
    row_of : completes the row of a column of the design.
    """
    for level, column in zip(block.levels, columns, strict=True):
        if level not in block.missing_levels:
            yield row_of(replace(base, level=shown_level(block.term, level)), column)


def level_sizes(base: Estimate, model: TermModel, patients: Patients) -> Iterator[Estimate]:
    """Patients and events of a model by level of its categories.

    Parameters
    ----------
    base : a row of the model.
    patients : those of the model.
    """
    base = replace(base, n=model.n, n_events=model.n_events)
    for block in model.blocks:
        codes = levels_of(patients, block.term) if block.term.levels else np.zeros(0, np.int64)
        for code, name in enumerate(block.term.levels):
            row = replace(base, term=block.term.name, level=name, method="of this level")
            mine = codes == code
            yield replace(row, statistic="patients", value=float(mine.sum()))
            yield replace(row, statistic="events", value=float((mine & model.event).sum()))


def reference_row(base: Estimate, term: Term) -> Iterator[Estimate]:
    """The row of the reference level of a categorical term."""
    if term.levels:
        yield replace(base, level=term.reference_level, value=1.0, method="reference")


def few_events(per_parameter: float) -> str:
    """Note for the method of an estimate with too few events per parameter, else empty."""
    if per_parameter >= EVENTS_PER_PARAMETER:
        return ""
    return f"; only {per_parameter:.1f} events per parameter"


def complete(patients: Patients, terms: Sequence[Term]) -> tuple[Bools, dict[str, str]]:
    """Patients with all terms, shape (n,), and the terms that no patient has, which are ignored."""
    keep, absent = np.ones(patients.n, np.bool_), {}
    for term in terms:
        present = has_term(patients, term)
        if patients.n and not present.any():
            absent[term.name] = f"column `{term.source}` is missing in all {patients.n} patients"
        else:
            keep &= present
    return keep, absent


def fit_terms(patients: Patients, terms: Sequence[Term], days: Floats, event: Bools) -> TermModel:
    """Fit a model of terms in patients who have them all.

    Constant and collinear terms are left out and named in `dropped`.

    Raises
    ------
    NotEstimableError
        If there are no patients or no events, or the likelihood has no maximum for another reason
        than a level without events.
    """
    if not patients.n:
        raise NotEstimableError("no patients with every covariate")
    if not event.any():
        raise NotEstimableError(f"no events in {patients.n} patients")
    blocks, dropped = [], {}
    for term in terms:
        try:
            blocks.append(_block(patients, term, event))
        except _TermError as fault:
            dropped[term.name] = str(fault)
    while True:
        try:
            return _fit(tuple(blocks), dropped, days, event)
        except (ConstantColumnError, CollinearColumnError) as fault:
            at = _owner([block.columns for block in blocks], fault.columns[0])
            why = "constant" if isinstance(fault, ConstantColumnError) else "collinear"
            others = "; ".join(block.term.title for block in blocks[:at])
            dropped[blocks[at].term.name] = (
                "constant in these patients"
                if why == "constant"
                else f"collinear with {others or 'its levels'}"
            )
            del blocks[at]


def term_test(model: TermModel, at: int, patients: Patients) -> tuple[float, int, float]:
    """Likelihood-ratio test of one term of a model: chi-square, df, p."""
    others = [block.term for index, block in enumerate(model.blocks) if index != at]
    return nested_gain(fit_terms(patients, others, model.days, model.event), model)


def nested_gain(smaller: TermModel, larger: TermModel) -> tuple[float, int, float]:
    """Likelihood-ratio chi-square, df and p of a model and a larger one of the same patients."""
    return larger.against(smaller.fit.log_likelihood, smaller.parameters)


def plain_design(patients: Patients, terms: Sequence[Term]) -> tuple[Floats, dict[str, str]]:
    """Design for risk prediction, shape (n, p), including levels without events.

    Constant and collinear terms are left out; returned with the reason.
    """
    columns, left_out = [], {}
    for term in terms:
        if term.kind == "numeric" and term.knots is None:
            columns.append((term, numbers_of(patients, term)[:, None]))
        elif term.kind == "numeric":
            columns.append((term, spline_basis(numbers_of(patients, term), term.knots or 3)))
        else:
            names, level = level_names(term), levels_of(patients, term)
            there = [at for at in range(len(names)) if (level == at).any()]
            if len(there) < 2:
                left_out[term.name] = "constant"
                continue
            wanted = names.index(term.reference_level) if term.levels else 0
            reference = wanted if wanted in there else there[0]
            columns.append((term, indicators(level, [at for at in there if at != reference])))
    while columns:
        design = np.concatenate([block for _, block in columns], axis=1)
        try:
            require_rank(design - design.mean(axis=0))
        except (ConstantColumnError, CollinearColumnError) as fault:
            at = _owner([block for _, block in columns], fault.columns[0])
            left_out[columns[at][0].name] = (
                "constant" if isinstance(fault, ConstantColumnError) else "collinear"
            )
            del columns[at]
        else:
            return design, left_out
    return np.zeros((patients.n, 0)), left_out


class _TermError(Exception):
    """A term that cannot be in a model."""


def _block(patients: Patients, term: Term, event: Bools) -> Block:
    none = np.zeros(patients.n, np.bool_)
    if term.kind == "numeric":
        values = numbers_of(patients, term)
        if term.knots is None:
            return Block(term, ("",), values[:, None], {}, none)
        basis = spline_basis(values, term.knots)
        names = ("linear", *(f"cubic {n}" for n in range(1, basis.shape[1])))
        return Block(term, names, basis, {}, none)
    names, level = level_names(term), levels_of(patients, term)
    reference = names.index(term.reference_level) if term.levels else 0
    counts = [int((level == at).sum()) for at in range(len(names))]
    with_event = [int((event & (level == at)).sum()) for at in range(len(names))]
    if sum(count > 0 for count in counts) < 2:
        only = next((names[at] for at, count in enumerate(counts) if count), "none")
        raise _TermError(f"constant: every patient has {only}")
    missing: dict[str, str] = {}
    excluded = none.copy()
    for at, name in enumerate(names):
        if not counts[at]:
            missing[name] = "no patients in this level"
        elif not with_event[at]:
            missing[name] = f"no events in the {counts[at]} patients of this level"
            excluded |= level == at
    usable = [at for at in range(len(names)) if counts[at] and with_event[at]]
    others = [at for at in usable if at != reference]
    if reference not in usable:
        why = "no patients" if not counts[reference] else "no events"
        for at in others:
            missing[names[at]] = f"{why} in the reference level {names[reference]}"
        missing.pop(names[reference])
        others = others[1:]  # coded against the first of them; the fit of all else is the same
    named = tuple(names[at] for at in others)
    infinite = sum(count > 0 for count in counts) - 1 - len(others)
    return Block(term, named, indicators(level, others), missing, excluded, infinite)


def _fit(
    blocks: tuple[Block, ...], dropped: dict[str, str], days: Floats, event: Bools
) -> TermModel:
    kept = (
        ~np.any([block.excluded for block in blocks], axis=0)
        if blocks
        else np.ones(len(days), np.bool_)
    )
    parts = [block.columns for block in blocks]
    design = np.concatenate(parts, axis=1) if parts else np.zeros((len(days), 0))
    fit = fit_cox(design[kept], days[kept], event[kept])
    places, at = [], 0
    for part in parts:
        places.append(tuple(range(at, at + part.shape[1])))
        at += part.shape[1]
    return TermModel(
        blocks,
        tuple(places),
        dict(dropped),
        fit,
        design,
        days,
        event,
        kept,
        len(days),
        int(event.sum()),
    )


def _owner(blocks: Sequence[Floats], column: int) -> int:
    for at, block in enumerate(blocks):
        column -= block.shape[1]
        if column < 0:
            return at
    raise AssertionError("a column belongs to a block")
