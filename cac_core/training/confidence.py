"""Fits the confidence of a score on held-out scans, whose true scores are known.

First the chances of the components, by logistic regression of their annotated class; then the
common shift, the factor and unseen calcium, by the likelihood of the true scores. Hearts are those
that the networks find: calcium outside a heart mask, and other bright tissue inside, is a part of
the uncertainty.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from cac_core.model.cascade import Cascade
from cac_core.model.classes import classify_lesions
from cac_core.model.preprocess import candidates, heart_mask
from cac_core.progress import Progress
from cac_core.protocol import ScoringProtocol
from cac_core.scoring.agatston import score_calcium
from cac_core.scoring.candidate_components import CandidateComponents, find_components
from cac_core.scoring.confidence import ConfidenceModel, ScoreDistribution, coronary_chances
from cac_core.scoring.lesions import label_lesions
from cac_core.training.records import ConfidenceRecord
from cac_core.training.samples import Sample, SampleFiles, load_sample

#: Classes of the true score whose likelihood is maximised: the limits of the categories, and more
#: between them, because four categories say little about the width of a distribution.
SCORE_CLASSES = (1.0, 10.0, 30.0, 100.0, 200.0, 400.0, 800.0, 1600.0)
#: Penalty of the logistic regression: half the inverse variance of the slopes' and offsets' prior.
_RIDGE = 0.01
#: Prior of the other parameters: what a factor e away from the default costs, in scans.
_PRIOR_SCANS = 0.5
_SMALLEST_LIKELIHOOD = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceCase:
    """A held-out scan: components in the predicted heart, their annotated class, its true score.

    Parameters
    ----------
    is_calcium : (n,), whether annotated calcium lies in the component.
    is_coronary : (n,), whether most of that is coronary.
    truth : annotated Agatston score.
    """

    components: CandidateComponents
    is_calcium: NDArray[np.bool_]
    is_coronary: NDArray[np.bool_]
    truth: float


def calibrate_confidence(
    folder: Path,
    held_out: SampleFiles,
    pool: Executor,
    progress: Progress,
    background_offset: float = 0.0,
) -> tuple[ConfidenceModel, ConfidenceRecord]:
    """Fit the parameters on held-out scans.

    Parameters
    ----------
    folder : weights.
    held_out : samples of the validation part.
    pool : worker processes that score them.
    background_offset : added to the score of the background class of these weights.
    """
    n = len(held_out.paths)
    progress.say(f"fitting the confidence of a score on {n} held-out scans")
    cases = []
    with progress.counting("scans") as report:
        for case in pool.map(_case, held_out.paths, [folder] * n, [background_offset] * n):
            cases.append(case)
            if report:
                report(len(cases), n)
    return fit_confidence(cases)


def fit_confidence(
    cases: Sequence[ConfidenceCase],
) -> tuple[ConfidenceModel, ConfidenceRecord]:
    """Maximum-likelihood parameters under weak priors, and how well they do."""
    fitted = _rounded(_with_spread(cases, _with_chances(cases)))
    return fitted, ConfidenceRecord(
        scans=len(cases),
        components=sum(len(case.components) for case in cases),
        log_score=round(log_score(cases, fitted), 4),
        log_score_default=round(log_score(cases, ConfidenceModel()), 4),
    )


def _with_chances(cases: Sequence[ConfidenceCase]) -> ConfidenceModel:
    """Default parameters, but for the chances of the components."""
    start = ConfidenceModel()
    calcium_offset, calcium_slope = _logistic(
        np.concatenate([case.components.calcium_margin for case in cases]),
        np.concatenate([case.is_calcium for case in cases]),
        (start.calcium_offset, start.calcium_slope),
    )
    coronary_offset, coronary_slope = _logistic(
        np.concatenate([case.components.coronary_margin[case.is_calcium] for case in cases]),
        np.concatenate([case.is_coronary[case.is_calcium] for case in cases]),
        (start.coronary_offset, start.coronary_slope),
    )
    return dataclasses.replace(
        start,
        calcium_slope=calcium_slope,
        calcium_offset=calcium_offset,
        coronary_slope=coronary_slope,
        coronary_offset=coronary_offset,
    )


def _with_spread(cases: Sequence[ConfidenceCase], start: ConfidenceModel) -> ConfidenceModel:
    """The other parameters, which are positive, or an odds, fitted on a logarithmic scale."""
    odds = start.unseen_chance / (1.0 - start.unseen_chance)
    origin = np.log([start.shift_sd, start.spread_sd, odds, start.unseen_median])

    def model_of(logs: NDArray[np.float64]) -> ConfidenceModel:
        shift, spread, unseen, median = np.exp(logs).tolist()
        return dataclasses.replace(
            start,
            shift_sd=shift,
            spread_sd=spread,
            unseen_chance=unseen / (1.0 + unseen),
            unseen_median=median,
        )

    def loss(logs: NDArray[np.float64]) -> float:
        penalty = _PRIOR_SCANS * float(((logs - origin) ** 2).sum())
        return penalty - len(cases) * log_score(cases, model_of(logs))

    best = minimize(loss, origin, method="Nelder-Mead", options={"xatol": 0.01, "fatol": 0.01})
    return model_of(best.x)


def log_score(cases: Sequence[ConfidenceCase], model: ConfidenceModel) -> float:
    """Mean logarithm of the chance that the true score is in its class; higher is better.

    A proper scoring rule (Gneiting and Raftery, J Am Stat Assoc 2007;102:359).
    """
    logs = []
    for case in cases:
        chances = coronary_chances(case.components, model)
        known = ScoreDistribution.of(chances, case.components.agatston, model)
        below = np.concatenate([[0.0], known.cdf(np.array(SCORE_CLASSES)), [1.0]])
        at = int(np.searchsorted(SCORE_CLASSES, case.truth, side="right"))
        logs.append(math.log(max(_SMALLEST_LIKELIHOOD, below[at + 1] - below[at])))
    return float(np.mean(logs))


def _logistic(
    margin: NDArray[np.float64], label: NDArray[np.bool_], default: tuple[float, float]
) -> tuple[float, float]:
    """Offset and slope of a logistic regression with a weak normal prior around the default."""
    sign = np.where(label, 1.0, -1.0)

    def loss(parameters: NDArray[np.float64]) -> float:
        offset, slope = parameters
        far = float(((parameters - np.array(default)) ** 2).sum())
        return float(np.logaddexp(0.0, -sign * (offset + slope * margin)).sum()) + _RIDGE * far

    bounds = ((None, None), (0.0, None))  # a larger margin never makes a class less likely
    offset, slope = minimize(loss, np.array(default), method="L-BFGS-B", bounds=bounds).x
    return float(offset), float(slope)


def _rounded(model: ConfidenceModel) -> ConfidenceModel:
    """Four digits: the rest is noise, and the digest of the weights contains them."""
    return ConfidenceModel(*(float(f"{value:.4g}") for value in model.as_manifest().values()))


def _case(path: Path, folder: Path, background_offset: float) -> ConfidenceCase:
    """Score a held-out scan in the heart that the networks find."""
    cascade, protocol = Cascade.load(folder, threads=1), ScoringProtocol()
    sample = load_sample(path)
    mask = _predicted_heart(cascade, sample)
    possible = candidates(
        sample.hu,
        mask,
        sample.spacing,
        threshold_hu=protocol.threshold_hu,
        min_area_mm2=protocol.min_area_mm2,
        connectivity=protocol.connectivity,
    )
    scores = cascade.candidate_scores(sample.hu, possible, mask)
    scores = scores + np.array([background_offset, 0, 0], np.float32)
    classes = classify_lesions(possible, scores)
    components = find_components(sample.hu, possible, scores, classes, sample.spacing, protocol)
    heart = sample.inside > 0
    annotated = np.where(heart, sample.calcium, 0).astype(np.uint8)
    lesions = label_lesions(sample.hu, annotated, heart, sample.spacing, protocol)
    of_voxel, n = components.of_voxel, len(components)
    coronary, other = (np.bincount(of_voxel, annotated[possible] == kind, n) for kind in (1, 2))
    truth = score_calcium(lesions, protocol).agatston
    return ConfidenceCase(components, coronary + other > 0, coronary > other, truth)


def _predicted_heart(cascade: Cascade, sample: Sample) -> NDArray[np.bool_]:
    """The heart mask of the networks, in the crop of a sample."""
    probability = cascade.heart_probability(torch.from_numpy(sample.heart_stack).float())
    slices, rows, columns = map(int, sample.scan_shape)
    whole = heart_mask(probability.mean(dim=0), (slices, rows, columns), sample.spacing)
    start, size = sample.crop_start.tolist(), sample.hu.shape
    k, r, c = (slice(begin, begin + n) for begin, n in zip(start, size, strict=True))
    return np.ascontiguousarray(whole[k, r, c])
