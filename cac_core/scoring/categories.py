"""Categories of the Agatston score, as the paper words them: 0, 1-100, 101-400, above 400.

Scores are fractional, the words are not. A score falls in the category whose upper bound it does
not exceed, and everything below 1 counts as 0 (Miller et al., J Nucl Med 2023).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from schemas.codes import CAC_CATEGORIES


def cac_category(agatston: float | None) -> str | None:
    """Category of one score; None where there is no score (None or NaN).

    Raises
    ------
    ValueError
        If the score is negative.
    """
    if agatston is None or math.isnan(agatston):
        return None
    if agatston < 0:
        raise ValueError(f"an Agatston score is not negative, got {agatston:g}")
    return CAC_CATEGORIES[int(agatston >= 1) + int(agatston > 100) + int(agatston > 400)]


def cac_categories(agatston: Iterable[float | None]) -> NDArray[np.object_]:
    """Category of each score: an object array of strings, None where there is no score.

    Parameters
    ----------
    agatston : (n,) numbers; None, NaN and pandas' missing values mean no score.

    Raises
    ------
    ValueError
        If a score is negative.
    """
    scores = np.array([_number(value) for value in agatston], np.float64)
    if (scores < 0).any():
        raise ValueError(f"{int((scores < 0).sum())} Agatston scores are negative")
    code = (scores >= 1).astype(np.intp) + (scores > 100) + (scores > 400)
    categories = np.array(CAC_CATEGORIES, object)[code]
    categories[np.isnan(scores)] = None
    return categories


#: Levels at which visual grades and scores are compared: Supplemental Table 3.
VISUAL_LEVELS = ("absent", "present", "extensive")
_LEVEL_OF = {
    "absent": "absent",
    "equivocal": "present",
    "present": "present",
    "extensive": "extensive",
    "0": "absent",
    "1-100": "present",
    "101-400": "present",
    ">400": "extensive",
}


def visual_level(word: str | None) -> str | None:
    """Level of a visual grade or of a category of the Agatston score; None where there is none.

    Equivocal counts as present, as few grades are equivocal; extensive means an estimate above 400
    (Miller et al., J Nucl Med 2023, Methods and Supplemental Table 3).

    Raises
    ------
    ValueError
        If the word is neither a grade nor a category.
    """
    if word is None:
        return None
    if word not in _LEVEL_OF:
        raise ValueError(f"{word!r} is no visual grade and no category")
    return _LEVEL_OF[word]


def _number(value: float | None) -> float:
    # pandas' NA compares equal to nothing and refuses float().
    try:
        return math.nan if value is None else float(value)
    except TypeError:
        return math.nan
