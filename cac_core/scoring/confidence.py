"""How sure a score is: chance of each category, and an interval that holds the true score.

Every component of candidates is coronary with a calibrated chance. The score is the sum of the
components that are; its distribution follows from the chances, a random effect that all components
of a study share, and a log-normal factor for what no class explains. docs/scoring.md has the
formulas and sources; `cac_core.training.confidence` fits the parameters.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtr

from cac_core.categories import cac_category
from cac_core.scoring.candidate_components import CandidateComponents
from schemas.score import CATEGORY_CHANCES

#: Share of the distribution inside the interval of the score.
COVERAGE = 0.90
#: Upper limits of the categories but the last: below 1, up to 100, up to 400.
CATEGORY_LIMITS = (1.0, 100.0, 400.0)
#: Standard deviation of the logarithm of an amount that no candidate shows.
UNSEEN_SD = 1.0

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(11)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
#: Variance of the logistic distribution that the probit approximation of a mean over normal shifts
#: uses: (16 sqrt(3) / (15 pi))^2 (Zeger, Liang and Albert, Biometrics 1988;44:1049).
_ATTENUATION = (16.0 * math.sqrt(3.0) / (15.0 * math.pi)) ** 2
#: Components that are added one by one; all others, whose chance to matter is smaller, are added as
#: one amount that is there or not.
_SINGLE = 40
#: Amounts kept: more are merged with their neighbours on a logarithmic scale.
_MOST_AMOUNTS = 512
_SMALLEST_CHANCE = 1e-9
_BISECTIONS = 50


@dataclass(frozen=True, slots=True)
class ConfidenceModel:
    """Parameters of the distribution of a score; the defaults are wide, for unfitted weights.

    Parameters
    ----------
    calcium_slope, calcium_offset : chance that a component is calcium: logistic function of
        offset + slope x calcium margin.
    coronary_slope, coronary_offset : chance that calcium is coronary, of the coronary margin.
    shift_sd : standard deviation of the shift of all logits of a study.
    spread_sd : standard deviation of the logarithm of the factor of the score.
    unseen_chance : chance that a study without coronary candidates has coronary calcium.
    unseen_median : median Agatston score of such calcium.
    """

    calcium_slope: float = 1.5
    calcium_offset: float = 0.0
    coronary_slope: float = 0.25
    coronary_offset: float = 0.0
    shift_sd: float = 1.0
    spread_sd: float = 0.5
    unseen_chance: float = 0.1
    unseen_median: float = 20.0

    @classmethod
    def from_manifest(cls, entry: Mapping[str, float] | None) -> ConfidenceModel:
        """Read the `confidence` object of a manifest; what it lacks has its default."""
        known = entry or {}
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: known[name] for name in names if name in known})

    def as_manifest(self) -> dict[str, float]:
        """The `confidence` object of a manifest."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure the score of one study is.

    Parameters
    ----------
    p_category : chance of each category, in the order of `CAC_CATEGORIES`; sums to 1.
    agatston_low, agatston_high : interval of the score; contains the score.
    """

    p_category: tuple[float, float, float, float]
    agatston_low: float
    agatston_high: float

    def columns(self) -> dict[str, object]:
        """Values of the columns of the table `scores`."""
        return {
            **dict(zip(CATEGORY_CHANCES, self.p_category, strict=True)),
            "agatston_low": self.agatston_low,
            "agatston_high": self.agatston_high,
        }


def coronary_chances(
    components: CandidateComponents, model: ConfidenceModel
) -> NDArray[np.float64]:
    """Chance of each component to be coronary, (n,)."""
    calcium = expit(model.calcium_offset + model.calcium_slope * components.calcium_margin)
    coronary = expit(model.coronary_offset + model.coronary_slope * components.coronary_margin)
    return np.asarray(calcium * coronary, np.float64)


def confidence_of(
    chances: ArrayLike, agatston: ArrayLike, score: float, model: ConfidenceModel
) -> Confidence:
    """How sure a score is, from the chances of its components.

    Parameters
    ----------
    chances : (n,), chance of each component to be coronary.
    agatston : (n,), what each adds to the score.
    score : score of the study.
    """
    amounts = ScoreDistribution.of(chances, agatston, model)
    below = amounts.cdf(np.array(CATEGORY_LIMITS))
    first, second, third = (float(value) for value in below)
    tail = (1.0 - COVERAGE) / 2.0
    return Confidence(
        (first, max(0.0, second - first), max(0.0, third - second), 1.0 - third),
        min(score, amounts.quantile(tail)),
        max(score, amounts.quantile(1.0 - tail)),
    )


def deciding_components(
    chances: NDArray[np.float64],
    components: CandidateComponents,
    score: float,
    doubtful: tuple[float, float],
) -> NDArray[np.bool_]:
    """Components of doubtful chance whose other class alone would change the category, (n,).

    Parameters
    ----------
    chances : from `coronary_chances`.
    score : score of the study.
    doubtful : range of doubtful chances.
    """
    doubted = (chances >= doubtful[0]) & (chances <= doubtful[1])
    sign = np.where(components.called == 1, -1.0, 1.0)
    category = cac_category(score)
    for at in np.flatnonzero(doubted):
        other = max(0.0, score + float(sign[at] * components.agatston[at]))
        doubted[at] = cac_category(other) != category
    return np.asarray(doubted, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class ScoreDistribution:
    """Distribution of the score of a study: amounts of coronary calcium, each with its chance.

    Parameters
    ----------
    amounts : (m,), ascending Agatston scores; the first is 0.
    weights : (m,), their chances; sum to 1.
    model : parameters of the factor and of unseen calcium.
    """

    amounts: NDArray[np.float64]
    weights: NDArray[np.float64]
    model: ConfidenceModel

    @classmethod
    def of(
        cls, chances: ArrayLike, agatston: ArrayLike, model: ConfidenceModel
    ) -> ScoreDistribution:
        """Distribution from the chances of the components, (n,), and what each adds, (n,)."""
        marginal = np.clip(np.asarray(chances, float), _SMALLEST_CHANCE, 1.0 - _SMALLEST_CHANCE)
        added = np.asarray(agatston, float)
        marginal, added = marginal[added > 0], added[added > 0]
        # Wider logits, so that their mean over the shifts has the given chances.
        wide = logit(marginal) * math.sqrt(1.0 + _ATTENUATION * model.shift_sd**2)
        shifted = expit(wide + model.shift_sd * _NODES[:, None])  # (nodes, n)
        order = np.argsort(-added * np.sqrt(marginal * (1.0 - marginal)), kind="stable")
        single, rest = order[:_SINGLE], order[_SINGLE:]
        amounts, weights = _sums(added[single], shifted[:, single])
        return cls(*_with_rest(amounts, weights, added[rest], shifted[:, rest]), model)

    def cdf(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Chance of a true score up to each of the given ones, which are positive."""
        model, logs = self.model, np.log(score)
        positive = np.log(self.amounts[1:])
        spread = max(model.spread_sd, 1e-9)
        seen = ndtr((logs[:, None] - positive) / spread) @ self.weights[1:]
        unseen = ndtr((logs - math.log(model.unseen_median)) / UNSEEN_SD)
        none = self.weights[0] * (1.0 - model.unseen_chance + model.unseen_chance * unseen)
        return np.asarray(np.clip(seen + none, 0.0, 1.0), np.float64)

    def quantile(self, share: float) -> float:
        """Smallest score whose chance not to be exceeded is at least `share`; 0 to 1 %."""
        if self.weights[0] * (1.0 - self.model.unseen_chance) >= share:
            return 0.0
        top = max(float(self.amounts[-1]), self.model.unseen_median)
        low = -7.0
        high = math.log(top) + 8.0 * max(self.model.spread_sd, UNSEEN_SD)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2.0
            if float(self.cdf(np.array([math.exp(middle)]))[0]) < share:
                low = middle
            else:
                high = middle
        return math.exp(high)


def _sums(
    added: NDArray[np.float64], chances: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distribution of the sum of independent components for each shift.

    Exact up to nine components; beyond, equal and neighbouring amounts are merged.

    Parameters
    ----------
    added : (n,), what each component adds.
    chances : (shifts, n).

    Returns
    -------
    Amounts, (m,), and their chances, (shifts, m).
    """
    amounts, weights = np.zeros(1), np.ones((len(chances), 1))
    for value, chance in zip(added, chances.T, strict=True):
        amounts = np.concatenate([amounts, amounts + value])
        weights = np.concatenate(
            [weights * (1.0 - chance[:, None]), weights * chance[:, None]], axis=1
        )
        amounts, weights = _merged(amounts, weights)
    return amounts, weights


def _merged(
    amounts: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most about `_MOST_AMOUNTS` amounts, each the mean of those that it replaces."""
    if len(amounts) <= _MOST_AMOUNTS:
        return amounts, weights
    logs = np.log1p(amounts)
    bins = np.ceil(logs / (logs.max() / _MOST_AMOUNTS)).astype(np.intp)  # 0 stays alone
    size = int(bins.max()) + 1
    nodes = len(weights)
    flat = (bins + size * np.arange(nodes)[:, None]).ravel()
    merged = np.bincount(flat, weights.ravel(), nodes * size).reshape(nodes, size)
    total = _WEIGHTS @ weights if nodes == len(_WEIGHTS) else weights.sum(axis=0)
    mass = np.bincount(bins, total, size)
    mean = np.bincount(bins, total * amounts, size) / np.maximum(mass, 1e-300)
    kept = mass > 0
    return np.asarray(mean[kept], np.float64), np.asarray(merged[:, kept], np.float64)


def _with_rest(
    amounts: NDArray[np.float64],
    weights: NDArray[np.float64],
    added: NDArray[np.float64],
    chances: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average over the shifts, with the remaining components as one amount: there or not."""
    if len(added):
        none = np.exp(np.log1p(-chances).sum(axis=1))  # (shifts,)
        amount = float(_WEIGHTS @ (chances @ added)) / max(1e-300, float(_WEIGHTS @ (1.0 - none)))
        amounts = np.concatenate([amounts, amounts + amount])
        weights = np.concatenate([weights * none[:, None], weights * (1.0 - none[:, None])], axis=1)
    amounts, averaged = _merged(amounts, (_WEIGHTS @ weights)[None])
    order = np.argsort(amounts, kind="stable")
    return amounts[order], averaged[0][order]
