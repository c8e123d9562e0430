"""Categories of the Agatston score: 0, 1-100, 101-400 and above 400.

Scores are fractional, the names of the categories are not. A score belongs to the category whose
upper bound it does not exceed; below 1 it counts as 0 (Miller et al., J Nucl Med 2023).
"""

from __future__ import annotations

import math

from schemas.codes import CAC_CATEGORIES

#: Scores that separate the categories: the first at or above 1, the others above 100 and above 400.
CATEGORY_EDGES = (1, 100, 400)


def cac_category(agatston: float | None) -> str | None:
    """Return the category of a score; None for None and NaN.

    Raises
    ------
    ValueError
        If the score is negative.
    """
    if agatston is None or math.isnan(agatston):
        return None
    if agatston < 0:
        raise ValueError(f"an Agatston score is not negative, got {agatston:g}")
    first, second, third = CATEGORY_EDGES
    return CAC_CATEGORIES[(agatston >= first) + (agatston > second) + (agatston > third)]


#: Levels at which visual grades and scores are compared (Supplemental Table 3 of that paper).
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
    """Return the level of a visual grade or of a category of the Agatston score; None for None.

    Equivocal counts as present, because few grades are equivocal; extensive means an estimate above
    400 (Miller et al., J Nucl Med 2023, Methods and Supplemental Table 3).

    Raises
    ------
    ValueError
        If the word is neither a grade nor a category.
    """
    if word is None:
        return None
    if word not in _LEVEL_OF:
        raise ValueError(f"{word!r} is neither a visual grade nor a category")
    return _LEVEL_OF[word]
