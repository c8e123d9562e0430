"""Added value of a marker to a model, with all models refitted in every resample of patients.

A resample is identified by its number: its patients depend on the seed, that number and the number
of patients alone. So any split of the work over threads, processes or machines gives the same
values, and two markers of the same patients are compared in the same resamples (paired).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cac_core.stats.arrays import Bools, Floats, Ints
from cac_core.stats.censoring import checked_follow_up
from cac_core.stats.discrimination import (
    auc_at_estimate,
    auc_estimate,
    harrell_estimate,
    uno_estimate,
)
from cac_core.stats.reclassification import (
    Reclassification,
    idi,
    moves,
    nri_count,
    nri_kaplan_meier,
    nri_weighted,
)
from cac_core.stats.risk import fit_risk_model

#: Applies a function to each item and returns the results in order: `map`, or that of a pool.
Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

_NRI = ("event", "nonevent", "overall")
#: Measures of each marker, in this order.
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
#: Net reclassification with the risks of the fits in all patients, in this order.
FIXED = tuple(f"nri_{part}_fixed" for part in _NRI)
#: Measures that are corrected for optimism, the gain from judging models where they were fitted.
CORRECTED = tuple(name for name in METRICS if name.startswith(("auc", "harrell", "uno", "nri")))
OPTIMISM = tuple(f"{name}_optimism" for name in CORRECTED)
_CORRECTED = [METRICS.index(name) for name in CORRECTED]


@dataclass(frozen=True)
class MarkerData:
    """A model, and the same model with each marker added, in the same patients.

    Parameters
    ----------
    base : shape (n, p); rows in the order of time, events before censorings
        (`cac_core.stats.cox.time_order`).
    full : shape (n, q) for each marker.
    days, event : shape (n,), float64 and bool.
    cuts : limits of risk categories at the horizon, ascending.
    optimism : whether the models of a resample are evaluated in all patients too.

    Raises
    ------
    ValueError
        If shapes differ, a value is missing or infinite, `days` is negative, or rows are not in the
        order of time.
    """

    base: Floats
    full: Mapping[str, Floats]
    days: Floats
    event: Bools
    horizon_days: float
    cuts: tuple[float, ...]
    optimism: bool = False

    def __post_init__(self) -> None:
        days, event = checked_follow_up(self.days, self.event)
        if (np.diff(days) < 0).any() or (~event[:-1] & event[1:] & (np.diff(days) == 0)).any():
            raise ValueError("rows are not in the order of time, events before censorings")
        for name, design in {"base": self.base, **self.full}.items():
            if design.ndim != 2 or len(design) != len(days):
                raise ValueError(f"{name}: a design {design.shape} for {len(days)} patients")
            if not np.isfinite(design).all():
                raise ValueError(f"{name}: covariates that are missing or not finite")


@dataclass(frozen=True)
class MarkerFits:
    """Coefficients (per standard deviation) and risks of the fits in all patients."""

    base: Floats
    full: Mapping[str, Floats]
    base_risk: Floats
    full_risk: Mapping[str, Floats]


@dataclass(frozen=True)
class Resamples:
    """Values (resamples, markers, metrics); NaN where a resample has none."""

    markers: tuple[str, ...]
    metrics: tuple[str, ...]
    values: Floats

    def of(self, marker: str, metric: str) -> Floats:
        """One metric of one marker, shape (resamples,)."""
        found: Floats = self.values[:, self.markers.index(marker), self.metrics.index(metric)]
        return found


def resampled(n: int, seed: int, number: int) -> Ints:
    """Rows of resample `number` (n of n with replacement), ascending, shape (n,)."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))
    counts = np.bincount(generator.integers(0, n, n), minlength=n)
    return np.repeat(np.arange(n), counts)


def measure(data: MarkerData) -> tuple[MarkerFits, dict[str, Floats]]:
    """Fits in all patients, and the metrics of each marker in the order of `METRICS`."""
    base = fit_risk_model(data.base, data.days, data.event, data.horizon_days)
    full, full_risk, values = {}, {}, {}
    for name, design in data.full.items():
        found = fit_risk_model(design, data.days, data.event, data.horizon_days)
        full[name], full_risk[name] = found.coefficients, found.risk
        gain = 2 * (found.log_likelihood - base.log_likelihood)
        values[name] = _metrics(data.days, data.event, base.risk, found.risk, gain, data)
    return MarkerFits(base.coefficients, full, base.risk, full_risk), values


def bootstrap(
    data: MarkerData, fits: MarkerFits, resamples: int, seed: int, mapper: Mapper = map
) -> Resamples:
    """Metrics of every marker in each resample, with refitted models.

    Parameters
    ----------
    mapper : spreads the resamples; the kernels release the interpreter lock.
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
    horizon = data.horizon_days
    base = fit_risk_model(data.base[rows], days, event, horizon, fits.base)
    for at, (name, design) in enumerate(data.full.items()):
        moved = moves(fits.base_risk[rows], fits.full_risk[name][rows])
        out[at, len(METRICS) : known] = _components(nri_kaplan_meier(days, event, *moved, horizon))
        full = fit_risk_model(design[rows], days, event, horizon, fits.full[name])
        gain = 2 * (full.log_likelihood - base.log_likelihood)
        out[at, : len(METRICS)] = _metrics(days, event, base.risk, full.risk, gain, data)
        if data.optimism:
            in_all = _metrics(
                data.days, data.event, base.predict(data.base), full.predict(design), gain, data
            )
            out[at, known:] = (out[at, : len(METRICS)] - in_all)[_CORRECTED]
    return out


def corrected(apparent: float, optimism: Floats) -> tuple[float, int]:
    """A value less the mean optimism of the resamples, and how many of them have one.

    Harrell, Lee and Mark, Stat Med 1996;15:361. NaN if fewer than nine in ten have one.
    """
    usable = optimism[np.isfinite(optimism)]
    if len(optimism) == 0 or len(usable) < 0.9 * len(optimism):
        return float("nan"), len(usable)
    return apparent - float(usable.mean()), len(usable)


def percentile_interval(values: Floats, confidence: float = 0.95) -> tuple[float, float, int]:
    """Lower and upper limit, and how many resamples have a value.

    Plain percentiles (Efron and Tibshirani 1993, chapter 13); NaN if fewer than nine in ten
    resamples have a value, since those that fail are not a random sample of them.
    """
    usable = values[np.isfinite(values)]
    if len(values) == 0 or len(usable) < 0.9 * len(values):
        return float("nan"), float("nan"), len(usable)
    tail = (1 - confidence) / 2
    low, high = np.quantile(usable, (tail, 1 - tail))
    return float(low), float(high), len(usable)


def _metrics(
    days: Floats, event: Bools, old: Floats, new: Floats, gain: float, data: MarkerData
) -> Floats:
    """All metrics of one marker, in the order of `METRICS`."""
    if not (np.isfinite(old).all() and np.isfinite(new).all()):
        return np.full(len(METRICS), np.nan)
    horizon = data.horizon_days
    values = [gain]
    for first, second in (
        (auc_estimate(old, event), auc_estimate(new, event)),
        (
            auc_at_estimate(old, days, event, horizon),
            auc_at_estimate(new, days, event, horizon),
        ),
        (harrell_estimate(old, days, event), harrell_estimate(new, days, event)),
        (uno_estimate(old, days, event, horizon), uno_estimate(new, days, event, horizon)),
    ):
        values += [first, second, second - first]
    up, down = moves(old, new)
    shares = nri_kaplan_meier(days, event, up, down, horizon)
    classes = moves(old, new, np.asarray(data.cuts, np.float64))
    for found in (
        shares,
        nri_weighted(days, event, up, down, horizon),
        nri_count(event, up, down),
        nri_kaplan_meier(days, event, *classes, horizon),
    ):
        values += _components(found)
    return np.array([*values, *shares, idi(old, new, event)], np.float64)


def _components(found: Reclassification) -> tuple[float, float, float]:
    """In the order of `_NRI`."""
    return found.event, found.nonevent, found.overall
