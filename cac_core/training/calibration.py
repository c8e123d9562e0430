"""Calibration: the background offset, chosen by category agreement on held-out scans."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cac_core.categories import cac_category
from cac_core.evaluation.agreement import agreement
from cac_core.model.cascade import Cascade
from cac_core.model.classes import classify_lesions
from cac_core.model.preprocess import candidates
from cac_core.progress import Progress
from cac_core.protocol import ScoringProtocol
from cac_core.scoring.agatston import score_calcium
from cac_core.scoring.lesions import label_lesions
from cac_core.training.records import CalibrationRecord
from cac_core.training.samples import SampleFiles, load_sample
from schemas.codes import CAC_CATEGORIES

#: Candidate offsets, added to the score of the background class.
OFFSETS = tuple(round(0.2 * n, 1) for n in range(-4, 16))


def calibrate(
    folder: Path, held_out: SampleFiles, pool: Executor, progress: Progress
) -> CalibrationRecord:
    """Choose the background offset on held-out scans.

    Parameters
    ----------
    folder : uncalibrated weights.
    held_out : samples of the validation part.
    pool : worker processes that score them.
    """
    progress.say(f"calibrating on {len(held_out.names)} held-out scans")
    with progress.counting("scans") as report:
        rows = []
        for row in pool.map(_scores_by_offset, held_out.paths, [folder] * len(held_out.paths)):
            rows.append(row)
            if report:
                report(len(rows), len(held_out.paths))
    truth = [row[0] for row in rows]
    found = [[row[1][i] for row in rows] for i in range(len(OFFSETS))]
    kappas = [agreement(scores, truth)["kappa_linear"] or 0.0 for scores in found]
    losses = np.array(
        [
            [_category_distance(score, true) for true, score in zip(truth, scores, strict=True)]
            for scores in found
        ]
    )
    chosen, best = _one_standard_error(losses)
    return CalibrationRecord(
        background_offset=OFFSETS[chosen],
        scans=len(rows),
        kappa_linear=round(kappas[chosen], 3),
        offset_of_least_disagreement=OFFSETS[best],
        kappa_by_offset=dict(zip(map(str, OFFSETS), np.round(kappas, 3).tolist(), strict=True)),
    )


def _category_distance(score: float, truth: float) -> int:
    """Number of categories between two scores, the disagreement weight of linear kappa."""
    first, second = (CAC_CATEGORIES.index(str(cac_category(each))) for each in (score, truth))
    return abs(first - second)


def _one_standard_error(losses: NDArray[np.float64]) -> tuple[int, int]:
    """The offset closest to zero within one standard error of the best, and the best.

    On a few dozen scans the best of many offsets is selected by chance, and a large offset does not
    transfer to other scanners. One-standard-error rule of Breiman et al., Classification and
    Regression Trees, 1984; the error is that of the mean paired difference.

    Parameters
    ----------
    losses : category distances, (offsets, scans).

    Returns
    -------
    Indices into `OFFSETS`.
    """
    best = int(np.argmin(losses.mean(axis=1)))
    worse = losses - losses[best]
    errors = worse.std(axis=1, ddof=min(1, losses.shape[1] - 1)) / np.sqrt(losses.shape[1])
    near = [i for i in range(len(losses)) if worse[i].mean() <= errors[i]]
    return min(near, key=lambda i: abs(OFFSETS[i])), best


def _scores_by_offset(path: Path, folder: Path) -> tuple[float, list[float]]:
    """Annotated score of a held-out crop and its scores by offset, in the annotated heart."""
    cascade, protocol = Cascade.load(folder, threads=1), ScoringProtocol()
    sample = load_sample(path)
    spacing = sample.spacing
    heart = sample.inside == 2

    def agatston(classes: NDArray[np.uint8]) -> float:
        lesions = label_lesions(sample.hu, classes, heart, spacing, protocol)
        return score_calcium(lesions, protocol).agatston

    possible = candidates(
        sample.hu,
        heart,
        spacing,
        threshold_hu=protocol.threshold_hu,
        min_area_mm2=protocol.min_area_mm2,
        connectivity=protocol.connectivity,
    )
    scores = cascade.candidate_scores(sample.hu, possible, heart)
    background = np.array([1, 0, 0], np.float32)
    return agatston(sample.calcium), [
        agatston(classify_lesions(possible, scores + np.float32(offset) * background))
        for offset in OFFSETS
    ]
