"""The models that a calcium marker is added to, fitted once for each set of patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cac_core.analysis.estimate import Estimate, Question
from cac_core.analysis.plan import DAYS_PER_YEAR
from cac_core.analysis.term_models import complete, plain_design
from cac_core.errors import NotEstimableError
from cac_core.stats.arrays import Bools, Floats
from cac_core.stats.bootstrap import (
    METRICS,
    Mapper,
    MarkerData,
    MarkerFits,
    Resamples,
    bootstrap,
    measure,
)
from cac_core.stats.cox import time_order


@dataclass(frozen=True)
class MeasuredMarkers:
    """Markers of one set of patients.

    Parameters
    ----------
    values : for each source its measures, in the order of `cac_core.stats.bootstrap.METRICS`.
    degrees : for each source the degrees of freedom that it adds.
    left_out : covariates that are not in the models, and why.
    """

    data: MarkerData
    fits: MarkerFits
    values: dict[str, Floats]
    resamples: Resamples
    degrees: dict[str, int]
    left_out: dict[str, str]

    def counted(self, base: Estimate) -> Estimate:
        """`base` with the numbers of these patients and of their events."""
        return replace(base, n=len(self.data.days), n_events=int(self.data.event.sum()))

    def measures(self, source: str) -> dict[str, float]:
        """Measures of a source by name."""
        return dict(zip(METRICS, self.values[source].tolist(), strict=True))

    def risk(self, model: str) -> Floats:
        """Predicted risks of `base` or of the model with a source, shape (n,)."""
        return self.fits.base_risk if model == "base" else self.fits.full_risk[model]


class MarkerModels:
    """Measures sources in the patients who have them all; each set of patients once.

    Parameters
    ----------
    mapper : spreads the resamples over threads or machines.
    """

    def __init__(self, question: Question, outcome: str, mapper: Mapper) -> None:
        self._question, self._outcome, self._mapper = question, outcome, mapper
        self._known: dict[bytes, MeasuredMarkers] = {}

    def of(self, *sources: str) -> MeasuredMarkers:
        """Fits, values and resamples of some sources.

        Raises
        ------
        NotEstimableError
            If nothing can be estimated in these patients.
        """
        plan = self._question.plan
        patients, _, _ = self._question.outcome(self._outcome)
        readings = [plan.sources[name].term for name in sources]
        keep, absent = complete(patients, [*readings, *plan.covariates])
        unread = [absent[term.name] for term in readings if term.name in absent]
        if unread:
            raise NotEstimableError("; ".join(unread))
        # If no patient lacks a reading, all sources share their patients and resamples.
        same = [
            name
            for name, source in plan.sources.items()
            if name in sources or patients.present_in(source.term.source, keep)
        ]
        key = keep.tobytes()
        if key not in self._known:
            self._known[key] = _measured(self._question, self._outcome, same, keep, self._mapper)
        found = self._known[key]
        for name, model in (("the covariates", "base"), *((name, name) for name in sources)):
            if not np.isfinite(found.risk(model)).all():
                events = int(found.data.event.sum())
                raise NotEstimableError(f"too few events ({events}) for the model of {name}")
        return found


def _measured(
    question: Question, outcome: str, sources: Sequence[str], keep: Bools, mapper: Mapper
) -> MeasuredMarkers:
    plan = question.plan
    patients, days, event = question.outcome(outcome)
    if not keep.any():
        raise NotEstimableError("no patients with every covariate and reading")
    _, absent = complete(patients, plan.covariates)
    covariates = [term for term in plan.covariates if term.name not in absent]
    chosen, t, d = patients.chosen(keep), days[keep], event[keep]
    _require_outcome(t, d, plan.horizon_days)
    order = time_order(t, d)
    base, left_out = plain_design(chosen, covariates)
    full, degrees = {}, {}
    for name in sources:
        design, _ = plain_design(chosen, [plan.sources[name].term, *covariates])
        full[name] = np.ascontiguousarray(design[order])
        degrees[name] = design.shape[1] - base.shape[1]
    most = max(design.shape[1] for design in full.values())
    if d.sum() <= most:
        raise NotEstimableError(f"too few events ({int(d.sum())}) for {most} coefficients")
    data = MarkerData(
        np.ascontiguousarray(base[order]),
        full,
        t[order],
        d[order],
        plan.horizon_days,
        plan.risk_cuts,
        plan.optimism,
    )
    fits, values = measure(data)
    drawn = bootstrap(data, fits, plan.resamples, plan.seed, mapper)
    return MeasuredMarkers(data, fits, values, drawn, degrees, absent | left_out)


def _require_outcome(days: Floats, event: Bools, horizon_days: float) -> None:
    """Refuse patients of whom all or none have the event, or who are followed too short."""
    if not event.any() or event.all():
        raise NotEstimableError("no events" if not event.any() else "no patients without the event")
    if float(days.max()) < horizon_days:
        raise NotEstimableError(
            f"nobody is followed to the horizon of {horizon_days / DAYS_PER_YEAR:g} years; "
            f"the longest follow-up is {days.max() / DAYS_PER_YEAR:.2f} years"
        )
