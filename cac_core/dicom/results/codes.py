"""Codes of the objects; docs/dicom-results.md lists them with their sources."""

from __future__ import annotations

from pydicom.sr.coding import Code

#: Coding scheme of what no standard code is known for; declared in every object that uses it.
PRIVATE_SCHEME = "99CACCOHORT"
PRIVATE_SCHEME_NAME = "Codes of cac-cohort: quality flags, review reasons, categories"

ANATOMICAL_STRUCTURE = Code("123037004", "SCT", "Anatomical Structure")
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
HEART = Code("80891009", "SCT", "Heart")
CORONARY_ARTERY = Code("41801008", "SCT", "Coronary artery")
CALCIFICATION = Code("18115005", "SCT", "Pathologic calcification")
CT_OF_CHEST = Code("169069000", "SCT", "CT of chest")
VOLUME = Code("118565006", "SCT", "Volume")
CALCIUM_SCORE = Code("450360000", "SCT", "Coronary artery calcium score")
#: For calcium outside the coronary arteries, which the code above does not describe.
OTHER_CALCIUM_SCORE = Code("112058", "DCM", "Calcium score")
CALCIUM_VOLUME = Code("122660", "DCM", "Calcium Volume")
CALCIUM_MASS = Code("122661", "DCM", "Calcium Mass")
AGATSTON_METHOD = Code("112055", "DCM", "Agatston scoring method")
VOLUME_METHOD = Code("112056", "DCM", "Volume scoring method")
MASS_METHOD = Code("112057", "DCM", "Mass scoring method")
ASSESSMENT_CATEGORY = Code("111005", "DCM", "Assessment Category")
NO_UNITS = Code("1", "UCUM", "no units")
MM3 = Code("mm3", "UCUM", "cubic millimeter")
ML = Code("ml", "UCUM", "milliliter")
MG = Code("mg", "UCUM", "milligram")


def private(value: str, meaning: str) -> Code:
    """A code of the private scheme; a meaning is cut at 64 characters (VR LO)."""
    return Code(value, PRIVATE_SCHEME, meaning[:64])


AGATSTON_LOW = private("agatston-low", "Agatston score, lower limit of the 90 % interval")
AGATSTON_HIGH = private("agatston-high", "Agatston score, upper limit of the 90 % interval")
QUALITY_FLAG = private("quality-flag", "Quality flag")
REVIEW_REASON = private("review-reason", "Reason to look at the score")
INTENDED_USE = private("intended-use", "Intended use of the result")
RESEARCH_ONLY = private("research-only", "Research, not for diagnosis")
NO_MARK = private("none", "None")


def agatston_category(category: str) -> Code:
    """Category of the Agatston score: `0`, `1-100`, `101-400` or `>400`."""
    return private(f"cac-{category.replace('>', 'over-')}", f"Agatston score {category}")
