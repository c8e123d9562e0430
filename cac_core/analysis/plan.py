"""The analysis plan: outcomes, populations, readings and models, from one TOML file.

The shipped plan (`default_plan.toml`) is the paper's analysis.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cac_core.errors import UsageError
from cac_core.tomlfile import faults_of, read_toml

DAYS_PER_YEAR = 365.25


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Condition(_Part):
    """A condition on a column; all given limits must hold. A missing value never satisfies it."""

    column: str
    equals: float | str | None = None
    among: tuple[str, ...] | None = None
    below: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def _some_condition(self) -> Condition:
        if (self.equals, self.among, self.below, self.at_least) == (None,) * 4:
            raise ValueError("one of equals, among, below, at_least is needed")
        return self


class Population(_Part):
    """A subset of the table `linked`, in which everything is estimated."""

    description: str
    where: tuple[Condition, ...] = ()


class Term(_Part):
    """A covariate of a model.

    `numeric`: a number, its hazard ratio per `per` units; `binary`: 0 or 1; `category`: one of
    `levels`, the first of which is the reference unless `reference` names another. `cuts` turn
    numbers into categories (a value equal to a cut lies above it), `merge` maps texts to levels.
    For a binary term of texts `positive` is 1, `negative` 0 and any other text missing; without
    `negative` the column may have one other text.
    `knots` gives a numeric term a restricted cubic spline with that many knots. `unit` is shown
    where the term is described; without it, that of the column.
    """

    name: str
    label: str
    column: str | None = None
    kind: Literal["numeric", "binary", "category"] = "numeric"
    per: float = Field(default=1.0, gt=0)
    levels: tuple[str, ...] = ()
    reference: str | None = None
    positive: str | None = None
    negative: str | None = None
    cuts: tuple[float, ...] = ()
    merge: Mapping[str, str] = Field(default_factory=dict)
    knots: int | None = Field(default=None, ge=3, le=7)
    unit: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Term:
        if self.kind == "category":
            self._require_levels()
        elif self.levels or self.cuts or self.reference:
            raise ValueError(f"`{self.name}` is {self.kind} and has no levels")
        if self.knots is not None and self.kind != "numeric":
            raise ValueError(f"`{self.name}` is {self.kind} and takes no spline")
        if self.positive is not None and self.kind != "binary":
            raise ValueError(f"`{self.name}` is {self.kind}; `positive` is for binary terms")
        if self.negative is not None and self.negative == self.positive:
            raise ValueError(f"`positive` and `negative` of `{self.name}` are the same text")
        if self.negative is not None and self.positive is None:
            raise ValueError(f"`{self.name}` has `negative` without `positive`")
        return self

    def _require_levels(self) -> None:
        if len(self.levels) < 2:
            raise ValueError(f"category `{self.name}` needs two levels or more")
        if self.cuts and len(self.cuts) != len(self.levels) - 1:
            raise ValueError(
                f"`{self.name}` has {len(self.levels)} levels and {len(self.cuts)} cuts"
            )
        if tuple(sorted(self.cuts)) != self.cuts:
            raise ValueError(f"cuts of `{self.name}` are not in ascending order")
        if self.reference is not None and self.reference not in self.levels:
            raise ValueError(f"reference of `{self.name}` is not one of its levels")

    @property
    def source(self) -> str:
        """The column of `linked` behind the term."""
        return self.column or self.name

    @property
    def title(self) -> str:
        """The label without the step of its hazard ratio."""
        return self.label.split(", per ")[0]

    @property
    def reference_level(self) -> str:
        """The reference level of hazard ratios."""
        return self.reference or (self.levels[0] if self.levels else "")


class ScoreSource(_Part):
    """A reading of calcium: by the model, by an expert, or a visual estimate.

    `score` is the column of its Agatston score, if it has one; `grades` maps each category to a
    visual grade, for comparison with a source of other categories.
    """

    label: str
    term: Term
    score: str | None = None
    grades: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _categorical(self) -> ScoreSource:
        if self.term.kind != "category":
            raise ValueError("a score source enters models by its categories")
        return self


class Plan(_Part):
    """Everything that an analysis depends on beside the data.

    `horizon_years` is the time of absolute risks, calibration and reclassification;
    `risk_cuts` are limits of risk categories at that horizon. `compare` names pairs of sources.
    `optimism` adds discrimination and reclassification corrected for optimism.
    """

    outcomes: tuple[str, ...]
    primary: str
    horizon_years: float = Field(default=3.0, gt=0)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    interval: Literal["log-log", "log", "plain"] = "log-log"
    resamples: int = Field(default=2000, ge=0)
    seed: int = Field(default=2023, ge=0)
    optimism: bool = False
    risk_cuts: tuple[float, ...] = (0.03, 0.09)
    landmark_days: int | None = Field(default=90, ge=1)
    early_exclusion: str | None = None
    components: tuple[str, ...] = ()
    competing: str = "death"
    missing: Literal["complete_case", "multiple_imputation"] = "complete_case"
    imputations: int = Field(default=20, ge=2)
    normality_alpha: float = Field(default=0.05, gt=0, lt=1)
    thresholds: tuple[float, ...] = tuple(round(0.01 * n, 2) for n in range(1, 31))
    calibration_groups: int = Field(default=10, ge=2, le=50)
    populations: Mapping[str, Population]
    sources: Mapping[str, ScoreSource]
    compare: tuple[tuple[str, str], ...] = ()
    covariates: tuple[Term, ...]
    described: tuple[Term, ...] = ()
    interaction: str | None = None
    splines: tuple[Term, ...] = ()

    @model_validator(mode="after")
    def _references(self) -> Plan:
        names = [term.name for term in self.covariates]
        if len(set(names)) != len(names):
            raise ValueError("two covariates have one name")
        if self.primary not in self.outcomes:
            raise ValueError(f"the primary outcome `{self.primary}` is not one of the outcomes")
        unknown = sorted({one for pair in self.compare for one in pair} - set(self.sources))
        if unknown:
            raise ValueError(f"compare names unknown sources: {', '.join(unknown)}")
        if self.interaction is not None and self.interaction not in names:
            raise ValueError(f"interaction `{self.interaction}` is not a covariate")
        if tuple(sorted(self.risk_cuts)) != self.risk_cuts:
            raise ValueError("risk_cuts are not in ascending order")
        if self.optimism and not self.resamples:
            raise ValueError("optimism is estimated from resamples, and resamples is 0")
        return self

    @property
    def horizon_days(self) -> float:
        """The horizon in days of 1/365.25 year."""
        return self.horizon_years * DAYS_PER_YEAR

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every setting."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_plan(path: Path | None) -> Plan:
    """Read a plan; the shipped plan without a path.

    Raises
    ------
    UsageError
        If the file cannot be read, is not TOML, or has an unknown key or an invalid value.
    """
    values = read_toml(
        path or files("cac_core.analysis").joinpath("default_plan.toml"),
        "The plan",
        "Name another with --plan, or omit the option for the paper's analysis.",
    )
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            f"The plan {path}: {faults_of(error, Plan)}.",
            "`cac analyse --show-plan` prints the shipped plan to start from.",
        ) from None


def shipped_plan_text() -> str:
    """Text of the shipped plan, with comments."""
    return files("cac_core.analysis").joinpath("default_plan.toml").read_text(encoding="utf-8")
