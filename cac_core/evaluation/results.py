"""Results of evaluations: the fields of `cac evaluate --json` and of `evaluation.json`."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

#: Lower and upper limit of a 95 % confidence interval; None where undefined.
Interval = list[float | None]


class CategoryAgreement(TypedDict):
    """Agreement of categories; rows of the matrix are those of the reference."""

    n: int
    categories: list[str]
    concordance_reference_by_compared: list[list[int]]
    kappa_linear: float | None  # linear-weighted kappa
    kappa_linear_ci: Interval
    same_category: float  # share of studies, 0 to 1


class ScoreAgreement(CategoryAgreement):
    """Agreement of Agatston scores; `log` is log(1 + score)."""

    r2_log: float | None
    r2_log_ci: Interval
    icc_log: float | None  # ICC(2,1)
    icc_log_ci: Interval
    bland_altman: list[float | None]  # bias, lower and upper limit of agreement
    reference_zero: int  # studies with a reference below 1
    reference_zero_scored_zero: int
    reference_above_100: int
    reference_above_100_scored_above_0: int


ReliabilityRow = TypedDict(
    "ReliabilityRow",
    {"from": float, "to": float, "n": int, "mean_chance": float, "share": float, "ci": Interval},
)


class ReviewRow(TypedDict):
    """Kappa where the most doubtful studies have the score of the reference."""

    share: float
    n: int
    kappa_linear: float | None


class Certainty(TypedDict):
    """How sure scores say they are, compared with the reference."""

    n: int
    brier: float  # mean over studies of the sum over categories, 0 to 2
    mean_chance_of_category: float  # of the category of the score
    same_category: float  # share of studies whose category is that of the reference
    reliability: list[ReliabilityRow]  # categories of all studies, by their chance
    interval: float  # nominal coverage
    coverage: float  # share of references in the interval of the score
    coverage_ci: Interval
    needs_review: int
    kappa_after_needed_reviews: float | None
    wrong_category: int
    wrong_category_needs_review: int
    kappa_by_reviewed: list[ReviewRow]


#: Agreement by column and level of the column.
Groups = dict[str, dict[str, Any]]


class SourceComparison(CategoryAgreement):
    """Two sources of scores; the fields of `ScoreAgreement` are missing for visual grades."""

    r2_log: NotRequired[float | None]
    r2_log_ci: NotRequired[Interval]
    icc_log: NotRequired[float | None]
    icc_log_ci: NotRequired[Interval]
    bland_altman: NotRequired[list[float | None]]
    reference_zero: NotRequired[int]
    reference_zero_scored_zero: NotRequired[int]
    reference_above_100: NotRequired[int]
    reference_above_100_scored_above_0: NotRequired[int]
    compared: str
    reference: str
    only_compared: int  # studies without a score of the reference
    only_reference: int
    seconds_per_study_median: float
    groups: Groups
    certainty: NotRequired[Certainty | None]  # of a model against scores
    studies: list[dict[str, Any]]
    defects_planted: NotRequired[int]  # of a synthetic archive
    defects_found: NotRequired[int]


DetectionRow = TypedDict(
    "DetectionRow",
    {"from": float, "to": float | None, "lesions": int, "found": float | None, "ci": Interval},
)


class LesionFields(TypedDict):
    """Fields of `cac_core.evaluation.lesion_errors.Comparison`."""

    true_lesions: list[dict[str, Any]]  # fields of `TrueLesion`
    false_lesions: list[dict[str, Any]]  # fields of `FalseLesion`
    false_positive_mm3: float
    sensitivity: float | None
    heart_dice: float
    coronary_mm3: float
    coronary_in_heart_mm3: float
    slices_in_pieces: int


class StudyEvaluation(LesionFields):
    """One scan scored by the model: scores, errors by lesion, origin."""

    name: str
    model_id: str
    origin: str  # generator or real chest
    first: float  # Agatston score of the model
    second: float  # true Agatston score
    threshold_only: float  # score of all voxels above the threshold in the true heart
    perfect_classes: float  # score of a perfect classifier in the predicted heart
    reader: float  # score of a simulated reader
    visual_grade: str
    true_category: str
    p_category_0: float
    p_category_1_100: float
    p_category_101_400: float
    p_category_over_400: float
    agatston_low: float
    agatston_high: float
    needs_review: bool
    review_reasons: str
    slice_increment_mm: float
    noise_hu: str  # range of the standard deviation of the noise in the heart
    seconds: float
    digest: str  # of image and truth


class HeartCoverage(TypedDict):
    """How much of the true coronary calcium the found hearts hold; None without calcium."""

    coronary_in_heart: float | None  # share of the volume of all studies
    coronary_in_heart_90: float | None  # share of studies with at least 0.9 of their volume inside
    hearts_in_pieces: int  # studies


class ModelSummary(ScoreAgreement, HeartCoverage):
    """The model compared with the truth of generated scans."""

    compared: str
    reference: str
    threshold_only_kappa: float | None
    perfect_classes_kappa: float | None
    heart_dice_mean: float
    heart_dice_minimum: float
    volume_sensitivity_mean: float | None
    false_positive_mm3_mean: float
    lesions_by_volume_mm3: list[DetectionRow]
    lesions_by_peak_hu: list[DetectionRow]
    misses_by_cause: dict[str, int]
    false_alarms_by_cause: dict[str, int]
    reader: ScoreAgreement
    model_against_reader: ScoreAgreement
    seconds_per_study_median: float
    groups: Groups
    certainty: Certainty | None
    studies: list[StudyEvaluation]


class ModelEvaluation(ModelSummary):
    """Result of `cac evaluate set` and `cac evaluate synthetic`."""

    model_id: str
    seeds: NotRequired[list[int]]  # first and last seed of `cac evaluate synthetic`
    test_set: NotRequired[str]
    description: NotRequired[str]
    left_out: NotRequired[list[str]]  # real chests that all weights were trained on
    digest: NotRequired[str]  # of the test set
    frozen: NotRequired[bool | None]  # whether it is the frozen set; None for a part, or not frozen
