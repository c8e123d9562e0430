"""How a site's extracts become canonical tables: a TOML file, read and checked before any data.

A mapping names sources. Each source says which files it is, how they are written (format, encoding,
date formats) and which of its columns are which of ours, with codings and units. Nothing of an
extract is edited by hand.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cac_core.errors import UsageError
from schemas.registry import REGISTRY_TABLES

_TABLES = {table.name: table for table in REGISTRY_TABLES}
#: Columns that a source may give instead of one of ours, which is then computed: age from the
#: birth date, body mass index from weight and height. They end with the canonical row.
AUXILIARY: Mapping[str, tuple[str, ...]] = {"clinical": ("birth_date", "weight_kg", "height_cm")}
#: What a value in another unit is multiplied by, for the unit that our columns have.
UNITS: Mapping[str, float] = {
    "": 1.0,
    "lb": 0.45359237,  # weight_kg; international avoirdupois pound
    "g": 0.001,
    "in": 2.54,  # height_cm
    "m": 100.0,
    "share": 100.0,  # percentages as fractions of one
    "months": 1 / 12,  # age_years
    "days": 1 / 365.25,
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnMapping(_Section):
    """One of our columns: a source column with coding and unit, or a constant."""

    column: str | None = None
    constant: str | None = None
    codes: dict[str, str] = Field(default_factory=dict)
    unit: str = ""

    @model_validator(mode="after")
    def _one_source(self) -> ColumnMapping:
        if (self.column is None) == (self.constant is None):
            raise ValueError("give either `column` or `constant`")
        if self.unit not in UNITS:
            raise ValueError(f"unit {self.unit!r} is none of {', '.join(filter(None, UNITS))}")
        return self


class Repeated(_Section):
    """Numbered source columns that become a row each: `DX{n}` for n from 1 to `count`."""

    count: int = Field(ge=1, le=200)
    columns: dict[str, str]

    @model_validator(mode="after")
    def _numbered(self) -> Repeated:
        plain = [name for name in self.columns.values() if "{n" not in name]
        if plain:
            raise ValueError(f"`{plain[0]}` has no {{n}} for the number")
        return self


class Source(_Section):
    """Files of one kind, and how they are read.

    `files` is the name of a file, or a pattern where no file has that very name. `dates` are
    formats of strptime; ISO dates are understood beside them. `missing` are texts that mean no
    value. Lines that are not in `encoding` are read in `fallback_encoding`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")
    table: Literal["clinical", "perfusion", "encounters", "deaths", "follow_up", "readings"]
    files: str
    format: Literal["csv", "tsv", "parquet", "excel"] = "csv"
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    encoding: str = "utf-8"
    fallback_encoding: str = "cp1252"
    sheet: str | None = None
    decimal: Literal[".", ","] = "."
    dates: tuple[str, ...] = ("%Y-%m-%d",)
    missing: tuple[str, ...] = ("", "NA", "N/A", "NULL", ".")
    columns: dict[str, ColumnMapping]
    repeated: tuple[Repeated, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("columns"), dict):
            columns = {
                name: {"column": given} if isinstance(given, str) else given
                for name, given in values["columns"].items()
            }
            return {**values, "columns": columns}
        return values

    @model_validator(mode="after")
    def _readable(self) -> Source:
        for encoding in (self.encoding, self.fallback_encoding):
            try:
                "".encode(encoding)  # `hex` and the like are codecs, but not of text
            except LookupError:
                raise ValueError(f"there is no encoding {encoding!r}") from None
        for form in self.dates:
            if re.search(r"%[zZ].*[^ ]", form):
                raise ValueError(f"the offset must be the end of the date format {form!r}")
        if self.delimiter in '"\r\n\0':
            raise ValueError(f"{self.delimiter!r} is no delimiter")
        return self

    @model_validator(mode="after")
    def _known_columns(self) -> Source:
        spec = _TABLES[self.table]
        known = {column.name for column in spec.columns} | set(AUXILIARY.get(self.table, ()))
        given = set(self.columns).union(*(group.columns for group in self.repeated))
        if given - known:
            raise ValueError(
                f"`{self.table}` has no column {', '.join(sorted(given - known))}; "
                f"it has {', '.join(sorted(known))}"
            )
        needed = {column.name for column in spec.columns if not column.nullable}
        if needed - given:
            raise ValueError(f"column {', '.join(sorted(needed - given))} is not mapped")
        for name, mapped in self.columns.items():
            allowed = next((c.allowed for c in spec.columns if c.name == name), ())
            wrong = sorted(set(mapped.codes.values()) - set(allowed)) if allowed else []
            if wrong:
                raise ValueError(f"`{name}` cannot be {wrong[0]!r}; it is {', '.join(allowed)}")
        return self

    @property
    def field_delimiter(self) -> str:
        """Character between the fields of a text file."""
        return "\t" if self.format == "tsv" else self.delimiter

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of all columns that the source's files must have."""
        plain = [item.column for item in self.columns.values() if item.column is not None]
        numbered = [
            name.replace("{n}", str(n))
            for group in self.repeated
            for name in group.columns.values()
            for n in range(1, group.count + 1)
        ]
        return tuple(dict.fromkeys(plain + numbered))

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides what the source's files become."""
        text = json.dumps(self.model_dump(mode="json", exclude={"files"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Coverage(_Section):
    """When the registry watched its population; events outside are not looked for."""

    begin: dt.date | None = None
    end: dt.date


class Rules(_Section):
    """What becomes of studies and patients that do not fit.

    `window_days`: how far study dates of archive and registry may differ. `required`: covariates
    without which a patient is left out; all others may be missing. `quarantine_limit`: largest
    share of an extract's rows in quarantine before the run stops. `min_match_rate`: smallest share
    of clinical rows or studies, whichever are fewer, that must match. `shift_dates`: move all
    dates of a patient by days that only the holder of the secret knows; intervals stay exact.
    """

    window_days: int = Field(default=3, ge=0, le=365)
    required: tuple[str, ...] = ("age_years", "sex")
    quarantine_limit: float = Field(default=0.05, ge=0, le=1)
    min_match_rate: float = Field(default=0.05, ge=0, le=1)
    shift_dates: bool = False


class SiteMapping(_Section):
    """A whole mapping file."""

    site: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")
    coverage: Coverage
    rules: Rules = Rules()
    source: tuple[Source, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> SiteMapping:
        names = [item.name for item in self.source]
        if len(set(names)) != len(names):
            raise ValueError("two sources have the same name")
        if "clinical" not in {item.table for item in self.source}:
            raise ValueError("no source gives the table `clinical`")
        return self


def load_mapping(path: Path) -> SiteMapping:
    """Read a mapping.

    Raises
    ------
    UsageError
        If it cannot be read, or holds a key, column, code or unit that we do not know.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The mapping {path} cannot be read ({_why(error)}).",
            "Draft one from an extract with: cac link --propose FILE",
        ) from None
    try:
        return SiteMapping.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = _place(first["loc"], values)
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        reason = first["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"The mapping {path}: {where}: {reason}{more}.", "See docs/linkage.md for an example."
        ) from None


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _place(location: tuple[int | str, ...], values: dict[str, Any]) -> str:
    """`source.1.columns` as a person reads it: the source's name, then the key."""
    if len(location) > 1 and location[0] == "source" and isinstance(location[1], int):
        name = values["source"][location[1]].get("name", f"number {location[1] + 1}")
        return ".".join([f"source {name}", *map(str, location[2:])])
    return ".".join(map(str, location)) or "the file"
