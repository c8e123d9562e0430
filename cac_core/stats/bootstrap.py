"""What a marker adds to a model, with models fitted anew in every resample of patients.

A resample is named by its number: its patients follow from the seed, that number and the number of
patients alone. So any split of the work over threads, processes or machines gives the same
figures, and two markers of the same patients are compared in the same resamples (paired).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cac_core.stats.cox import CONVERGED, SINGULAR, UNBOUNDED, comparable, hazard_steps, newton
from cac_core.stats.discrimination import _auc, _auc_at, _harrell, _uno
from cac_core.stats.reclassification import (
    count_components,
    km_components,
    moved,
    weighted_components,
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
#: Applies a function to each item and gives the results in order: `map`, or that of a pool.
Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

#: Refits start at the coefficients of all patients and may end earlier than the fit that is shown.
_TOLERANCE, _MOST_STEPS = 1e-10, 40
#: A risk below this may still be on its way to 0: the steps go on until they bring nothing more,
#: and what is below the second figure then is 0.
_TOWARDS_ZERO, _ZERO, _LAST_TOLERANCE = 1e-6, 1e-9, 1e-15
_NO_CUTS: Floats = np.zeros(0)
_NRI = ("event", "nonevent", "overall")
#: What is measured of each marker, in this order.
METRICS = (
    "lr_chi2_gain",
    *(
        f"{name}_{model}"
        for name in ("auc", "auc_time", "harrell_c", "uno_c")
        for model in ("base", "full", "gain")
    ),
    *(f"nri_{part}{form}" for form in ("", "_ipw", "_count", "_categorical") for part in _NRI),
    "p_up_event",
    "p_down_event",
    "p_up_nonevent",
    "p_down_nonevent",
    "idi",
)
#: Net reclassification with the risks of all patients kept as they are, in this order.
FIXED = tuple(f"nri_{part}_fixed" for part in _NRI)
#: What is corrected for optimism: how much better models look where they were fitted.
CORRECTED = tuple(name for name in METRICS if name.startswith(("auc", "harrell", "uno", "nri")))
OPTIMISM = tuple(f"{name}_optimism" for name in CORRECTED)
_CORRECTED = [METRICS.index(name) for name in CORRECTED]


@dataclass(frozen=True)
class MarkerData:
    """A model, and the same model with each marker added, in the same patients.

    Rows are sorted by time, events before censorings (`cac_core.stats.cox.time_order`); `base` is
    (n, p), each of `full` (n, q). `cuts` are limits of risk categories at the horizon. With
    `optimism` the models of a resample are judged in all patients too.
    """

    base: Floats
    full: Mapping[str, Floats]
    days: Floats
    event: Bools
    horizon_days: float
    cuts: tuple[float, ...]
    optimism: bool = False


@dataclass(frozen=True)
class MarkerFits:
    """Coefficients of all patients (per standard deviation) and the risks that follow."""

    base: Floats
    full: Mapping[str, Floats]
    base_risk: Floats
    full_risk: Mapping[str, Floats]


@dataclass(frozen=True)
class Resamples:
    """Values (resamples, markers, metrics); NaN where a resample gave none."""

    markers: tuple[str, ...]
    metrics: tuple[str, ...]
    values: Floats

    def of(self, marker: str, metric: str) -> Floats:
        """One metric of one marker, shape (resamples,)."""
        found: Floats = self.values[:, self.markers.index(marker), self.metrics.index(metric)]
        return found


def resampled(n: int, seed: int, number: int) -> Ints:
    """Rows of resample `number` (n of n with replacement), in rising order, shape (n,)."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))
    counts = np.bincount(generator.integers(0, n, n), minlength=n)
    return np.repeat(np.arange(n), counts)


def measure(data: MarkerData) -> tuple[MarkerFits, dict[str, Floats]]:
    """Fits in all patients, and the metrics of each marker in the order of `METRICS`."""
    base = _fitted(data.base, data.days, data.event, None, data.horizon_days)
    full, full_risk, values = {}, {}, {}
    for name, design in data.full.items():
        found = _fitted(design, data.days, data.event, None, data.horizon_days)
        full[name], full_risk[name] = found.coefficients, found.risk
        gain = 2 * (found.log_likelihood - base.log_likelihood)
        values[name] = _metrics(data.days, data.event, base.risk, found.risk, gain, data)
    return MarkerFits(base.coefficients, full, base.risk, full_risk), values


def bootstrap(
    data: MarkerData, fits: MarkerFits, resamples: int, seed: int, mapper: Mapper = map
) -> Resamples:
    """Metrics of every marker in each resample, models fitted anew.

    Parameters
    ----------
    mapper : how the resamples are spread; the kernels let other threads run.
    """
    work = partial(one_resample, data, fits, seed)
    rows = list(mapper(work, range(resamples)))
    markers, metrics = tuple(data.full), (*METRICS, *FIXED, *(OPTIMISM if data.optimism else ()))
    values = np.array(rows, np.float64).reshape(len(rows), len(markers), len(metrics))
    return Resamples(markers, metrics, values)


def one_resample(data: MarkerData, fits: MarkerFits, seed: int, number: int) -> Floats:
    """Metrics of each marker in one resample, shape (markers, metrics)."""
    rows = resampled(len(data.days), seed, number)
    days, event = data.days[rows], data.event[rows]
    known = len(METRICS) + len(FIXED)
    out = np.full((len(data.full), known + (len(OPTIMISM) if data.optimism else 0)), np.nan)
    if not event.any():
        return out
    base = _fitted(data.base[rows], days, event, fits.base, data.horizon_days)
    for at, (name, design) in enumerate(data.full.items()):
        fixed = km_components(
            days,
            event,
            *moved(fits.base_risk[rows], fits.full_risk[name][rows], _NO_CUTS),
            data.horizon_days,
        )
        out[at, len(METRICS) : known] = _components(fixed)
        full = _fitted(design[rows], days, event, fits.full[name], data.horizon_days)
        gain = 2 * (full.log_likelihood - base.log_likelihood)
        out[at, : len(METRICS)] = _metrics(days, event, base.risk, full.risk, gain, data)
        if data.optimism:
            everywhere = _metrics(
                data.days, data.event, base.of(data.base), full.of(design), gain, data
            )
            out[at, known:] = (out[at, : len(METRICS)] - everywhere)[_CORRECTED]
    return out


def corrected(apparent: float, optimism: Floats) -> tuple[float, int]:
    """A value less the mean optimism of the resamples, and how many of them gave one.

    Harrell, Lee and Mark, Stat Med 1996;15:361. NaN where fewer than nine in ten gave one.
    """
    usable = optimism[np.isfinite(optimism)]
    if len(optimism) == 0 or len(usable) < 0.9 * len(optimism):
        return float("nan"), len(usable)
    return apparent - float(usable.mean()), len(usable)


def percentile_interval(values: Floats, confidence: float = 0.95) -> tuple[float, float, int]:
    """Lower and upper limit, and how many resamples gave a value.

    The plain percentiles (Efron and Tibshirani 1993, chapter 13); NaN where fewer than nine in
    ten resamples gave one, since those that fail are not a random part of them.
    """
    usable = values[np.isfinite(values)]
    if len(values) == 0 or len(usable) < 0.9 * len(values):
        return float("nan"), float("nan"), len(usable)
    tail = (1 - confidence) / 2
    low, high = np.quantile(usable, (tail, 1 - tail))
    return float(low), float(high), len(usable)


@dataclass(frozen=True, slots=True)
class _Fit:
    """A fit: `coefficients` per SD of the columns to start others from, `beta` of its risks.

    The risk of a patient is 1 - exp(-hazard exp(eta - top)), eta from columns less `centre` over
    `spread` (1 where a column does not vary).
    """

    coefficients: Floats
    risk: Floats
    log_likelihood: float
    beta: Floats
    centre: Floats
    spread: Floats
    top: float = np.nan
    hazard: float = np.nan

    def of(self, design: Floats) -> Floats:
        """Risks of other patients by this fit, shape (n,)."""
        eta = comparable((design - self.centre) / self.spread @ self.beta)
        with np.errstate(over="ignore"):  # far beyond all patients of the fit the risk is 1
            risk = np.asarray(-np.expm1(-self.hazard * np.exp(eta - self.top)))
        risk[risk < _ZERO] = 0.0
        return risk


def _fitted(
    design: Floats, days: Floats, event: Bools, start: Floats | None, horizon_days: float
) -> _Fit:
    """Coefficients per SD of the design's columns, risks at the horizon, log-likelihood.

    Columns that do not vary (a level nobody of the resample has) are left out. Where the
    likelihood has no maximum the risks are those of its limit, 0 in a level without events; all
    NaN where it has none at all.
    """
    centre, spread = design.mean(axis=0), design.std(axis=0)
    varies = spread > 0
    spread = np.where(varies, spread, 1.0)
    scaled = np.ascontiguousarray(((design - centre) / spread)[:, varies])
    first = np.zeros(scaled.shape[1]) if start is None else np.ascontiguousarray(start[varies])
    found, _, _, log, status = newton(scaled, days, event, first, _MOST_STEPS, _TOLERANCE)
    if status == SINGULAR and start is not None:
        # The coefficients of all patients may lie too far out for these.
        first = np.zeros(scaled.shape[1])
        found, _, _, log, status = newton(scaled, days, event, first, _MOST_STEPS, _TOLERANCE)
    coefficients = np.zeros(design.shape[1])
    coefficients[varies] = found
    if status not in (CONVERGED, UNBOUNDED):
        none = np.full(len(days), np.nan)
        return _Fit(coefficients, none, float("nan"), coefficients, centre, spread)
    beta = coefficients
    risk, top, hazard = _risks(scaled @ found, days, event, horizon_days)
    if (risk < _TOWARDS_ZERO).any():
        further, _, _, better, status = newton(
            scaled, days, event, found, _MOST_STEPS, _LAST_TOLERANCE
        )
        if status in (CONVERGED, UNBOUNDED):
            beta, log = np.zeros(design.shape[1]), better
            beta[varies] = further
            risk, top, hazard = _risks(scaled @ further, days, event, horizon_days)
        risk[risk < _ZERO] = 0.0
    return _Fit(coefficients, risk, log, beta, centre, spread, top, hazard)


def _risks(
    eta: Floats, days: Floats, event: Bools, horizon_days: float
) -> tuple[Floats, float, float]:
    """Absolute risks by the horizon, the highest predictor, and the baseline hazard there.

    Risks are equal where linear predictors are equal but for rounding.
    """
    eta = comparable(eta)
    risk = np.exp(eta - eta.max())
    times, steps = hazard_steps(risk, days, event)
    hazard = float(steps[times <= horizon_days].sum())
    return np.asarray(-np.expm1(-hazard * risk)), float(eta.max()), hazard


def _metrics(
    days: Floats, event: Bools, old: Floats, new: Floats, gain: float, data: MarkerData
) -> Floats:
    """All metrics of one marker, in the order of `METRICS`."""
    if not (np.isfinite(old).all() and np.isfinite(new).all()):
        return np.full(len(METRICS), np.nan)
    horizon = data.horizon_days
    values = [gain]
    for first, second in (
        (_auc(old, event), _auc(new, event)),
        (_auc_at(old, days, event, horizon), _auc_at(new, days, event, horizon)),
        (_harrell(old, days, event), _harrell(new, days, event)),
        (_uno(old, days, event, horizon), _uno(new, days, event, horizon)),
    ):
        values += [first, second, second - first]
    up, down = moved(old, new, _NO_CUTS)
    shares = km_components(days, event, up, down, horizon)
    values += [*_components(shares)]
    values += [*_components(weighted_components(days, event, up, down, horizon))]
    values += [*_components(count_components(event, up, down))]
    classes = moved(old, new, np.asarray(data.cuts, np.float64))
    values += [*_components(km_components(days, event, *classes, horizon))]
    difference = new - old
    some = event.any() and not event.all()
    values += [*shares, difference[event].mean() - difference[~event].mean() if some else np.nan]
    return np.array(values, np.float64)


def _components(shares: Floats) -> tuple[float, float, float]:
    """Event, non-event and overall NRI from the four shares of movements."""
    event, nonevent = shares[0] - shares[1], shares[3] - shares[2]
    return event, nonevent, event + nonevent
