"""The rules of the CTAC selection, from TOML, with a digest."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from cac_core.dicom.descriptions import TextPolicy
from cac_core.errors import UsageError
from cac_core.tomlfile import faults_of, read_toml
from schemas.codes import SeriesReason

#: The rules shipped with the product.
DEFAULT_RULES = Path(__file__).with_name("ctac_rules.toml")
_WHAT, _WITHOUT = "The rules file", "Name another file, or omit it to use the shipped rules."

PatternField = Literal[
    "SeriesDescription", "ProtocolName", "ManufacturerModelName", "ConvolutionKernel"
]


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _PatternRule(_Rules):
    name: str
    pattern: str

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9_]+", value):
            raise ValueError("lower-case letters, digits and underscores only")
        return value

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from None
        return value


class RequiredRules(_Rules):
    """Ranges of accepted values; a missing value does not reject."""

    kvp_min: float
    kvp_max: float
    min_slices: int
    min_coverage_mm: float
    min_reconstruction_diameter_mm: float
    min_axial_cosine: float
    allow_without_mark: bool


class ImageTypeRules(_Rules):
    """Values of ImageType that classify a series."""

    localizer: tuple[str, ...]
    not_axial: tuple[str, ...]
    derived: tuple[str, ...]
    axial: tuple[str, ...]
    reject_derived_secondary: bool


class RoleRules(_Rules):
    """Patterns of rest and stress acquisitions, and the preferred one at equal rank."""

    rest: str
    stress: str
    preferred: Literal["rest", "stress"]


class ExcludeRule(_PatternRule):
    """A pattern of descriptions that rejects a series, with the reason."""

    reason: SeriesReason


class KernelRule(_PatternRule):
    """A pattern of reconstruction kernels that rejects a series."""


class PreferRule(_PatternRule):
    """A pattern that is evidence for CTAC."""

    fields: tuple[PatternField, ...]
    weight: float
    mark: bool


class FrameRule(_Rules):
    """Weight of an NM series with the same frame of reference."""

    weight: float
    mark: bool


class LowCurrentRule(_Rules):
    """Weight of a tube current or exposure as low as attenuation scans have."""

    max_tube_current_ma: float
    max_exposure_mas: float
    weight: float


class MissingRule(_Rules):
    """Weights of missing attributes and of truncated files."""

    weight: float
    truncated_weight: float


class SelectionRules(_Rules):
    """All rules that select the CTAC series of a study, see `ctac_rules.toml`."""

    required: RequiredRules
    image_type: ImageTypeRules
    roles: RoleRules
    exclude: tuple[ExcludeRule, ...]
    exclude_kernel: tuple[KernelRule, ...]
    prefer: tuple[PreferRule, ...]
    frame_of_reference: FrameRule
    low_current: LowCurrentRule
    missing: MissingRule

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of all rules as canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_rules(path: Path | None = None) -> SelectionRules:
    """Read the shipped rules; with a path, overridden by the rules of a site.

    Raises
    ------
    UsageError
        If the file cannot be read, is not TOML, or holds an unknown key or an invalid value; the
        message names the key.
    """
    values = read_toml(DEFAULT_RULES, _WHAT, _WITHOUT)
    if path is not None:
        for key, value in read_toml(path, _WHAT, _WITHOUT).items():
            inner = values.get(key)
            values[key] = inner | value if _both_tables(inner, value) else value
    try:
        return SelectionRules.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            f"The rules file {path or DEFAULT_RULES}: {faults_of(error, SelectionRules)}.",
            "The shipped cac_core/dicom/ctac_rules.toml shows every key.",
        ) from None


def text_policy(rules: SelectionRules, *, keep: bool = False) -> TextPolicy:
    """Return which words of a header are kept for the rules.

    Parameters
    ----------
    rules : rules of the selection.
    keep : keep descriptions whole, except for identifiers of the patient.
    """
    described = {"SeriesDescription", "ProtocolName"}
    patterns = (
        *(rule.pattern for rule in rules.exclude),
        *(rule.pattern for rule in rules.prefer if described & set(rule.fields)),
        *(rules.roles.rest, rules.roles.stress),
    )
    listed = rules.image_type
    values = (*listed.localizer, *listed.not_axial, *listed.derived, *listed.axial)
    devices = (
        *(rule.pattern for rule in rules.exclude_kernel),
        *(rule.pattern for rule in rules.prefer if set(rule.fields) - described),
    )
    return TextPolicy(patterns, tuple(sorted({value.upper() for value in values})), keep, devices)


def _both_tables(inner: object, value: object) -> bool:
    return isinstance(inner, dict) and isinstance(value, dict)
