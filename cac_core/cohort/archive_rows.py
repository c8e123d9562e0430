"""Rows of the archive page: what each SQL file `archive_*.sql` returns, by column."""

from __future__ import annotations

import datetime as dt
from typing import Literal, NotRequired, TypedDict

#: Columns that count scores by category, in the order of `schemas.codes.CAC_CATEGORIES`.
CategoryColumn = Literal["n_zero", "n_low", "n_middle", "n_high"]
CATEGORY_COLUMNS: tuple[CategoryColumn, ...] = ("n_zero", "n_low", "n_middle", "n_high")
#: Columns of median seconds per study, in the order of the stages.
StageColumn = Literal[
    "seconds_read", "seconds_heart", "seconds_calcium", "seconds_score", "seconds_preview"
]
STAGE_COLUMNS: tuple[StageColumn, ...] = (
    "seconds_read",
    "seconds_heart",
    "seconds_calcium",
    "seconds_score",
    "seconds_preview",
)


class RunRow(TypedDict):
    """A run, and how many studies it left (`queued`)."""

    run_id: str
    job: str
    started_at: dt.datetime
    outcome: str
    model_id: str
    studies: int
    scored: int
    rejected: int
    failed: int
    skipped: int
    seconds: float
    file_reasons: str
    queued: int


class ReasonRow(TypedDict):
    """Studies without a score for one reason, in all and in the newest run."""

    status: Literal["rejected", "failed"]
    reason: str
    studies: int
    last_run: int


class ReviewRow(TypedDict):
    """Scores that need review for one reason, or for any (null), in all and in the newest run."""

    reason: str | None
    studies: int
    last_run: int


class CategoryCounts(TypedDict):
    """Scores, and how many are in each category."""

    n: int
    n_zero: int
    n_low: int
    n_middle: int
    n_high: int
    median_agatston: float


class MonthRow(CategoryCounts):
    """Scores of the studies of one month; the newest against the months before it (`rest_*`)."""

    month: str
    median_noise_hu: float | None
    rest_n: NotRequired[int]
    rest_zero: NotRequired[int]
    rest_high: NotRequired[int]
    zero_z: NotRequired[float | None]
    high_z: NotRequired[float | None]
    stands_out: NotRequired[tuple[str, ...]]


class ModelRow(CategoryCounts):
    """Scores of one model, and of the studies that the current model scored too."""

    model: str
    n_both: int
    n_same: int
    n_higher_now: int
    scored_last: dt.datetime


class ScannerRow(TypedDict):
    """Scores of one scanner against those of all others (`rest_*`); z as in `ArchiveState`."""

    scanner: str
    n: int
    n_zero: int
    n_high: int
    median_agatston: float
    noise_q1: float | None
    noise_median: float | None
    noise_q3: float | None
    zero_low: float
    zero_high: float
    rest_n: int | None
    rest_zero: int | None
    rest_high: int | None
    rest_noise: float | None
    noise_z: float | None
    zero_z: float | None
    high_z: float | None
    stands_out: tuple[str, ...]


class SpeedRow(TypedDict):
    """Scored studies of one run, and the median seconds per study of each stage."""

    run_id: str
    n: int
    seconds_read: float | None
    seconds_heart: float | None
    seconds_calcium: float | None
    seconds_score: float | None
    seconds_preview: float | None
