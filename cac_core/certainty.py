"""How sure the score of a segmented scan is: the columns of `scores` that say so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cac_core.protocol import ScoringProtocol
from cac_core.scoring.candidate_components import find_components
from cac_core.scoring.confidence import (
    ConfidenceModel,
    confidence_of,
    coronary_chances,
    deciding_components,
)
from cac_core.scoring.lesions import NONCORONARY
from cac_core.scoring.review import ReviewLimits, certainty_reasons, image_reasons
from schemas.codes import QualityFlag

if TYPE_CHECKING:  # planning a run imports the callers, and not torch
    from cac_core.model.cascade import Segmentation


def certainty_columns(
    hu: NDArray[np.int16],
    found: Segmentation,
    spacing_mm: tuple[float, float, float],
    score: float,
    flags: Collection[QualityFlag],
    parameters: Mapping[str, float] | None,
    protocol: ScoringProtocol,
    threshold_hu: float | None = None,
) -> dict[str, object]:
    """Chances of the categories, interval of the score, and reasons for review.

    Parameters
    ----------
    hu : (slice, row, column).
    found : result of the cascade.
    spacing_mm : slice, row, column spacing.
    score : Agatston score of the scan.
    flags : quality flags of the scan.
    parameters : `confidence` object of the weights.
    protocol, threshold_hu : as in `cac_core.scoring.lesions.label_lesions`.
    """
    components = find_components(
        hu, found.possible, found.scores, found.calcium_class, spacing_mm, protocol, threshold_hu
    )
    model, limits = ConfidenceModel.from_manifest(parameters), ReviewLimits()
    chances = coronary_chances(components, model)
    confidence = confidence_of(chances, components.agatston, score, model)
    deciding = deciding_components(chances, components, score, limits.doubtful_chance)
    other = float(components.agatston[components.called == NONCORONARY].sum())
    reasons = certainty_reasons(confidence, score, other, deciding, limits) | image_reasons(
        hu,
        found.heart_mask,
        spacing_mm,
        found.hearts_overlap,
        flags,
        protocol.threshold_hu if threshold_hu is None else threshold_hu,
        limits,
    )
    return {
        **confidence.columns(),
        "needs_review": bool(reasons),
        "review_reasons": ";".join(sorted(reason.value for reason in reasons)),
    }
