"""Mapping of a site's extracts to canonical tables: a TOML file, validated before any data is read.

A mapping lists sources. Each source names its files, their format, encoding and date formats, and
the source column of each canonical column, with codes and units. Extracts are never edited by hand.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cac_core.errors import UsageError
from cac_core.tomlfile import read_toml
from schemas.registry import REGISTRY_TABLES

_TABLES = {table.name: table for table in REGISTRY_TABLES}
#: Columns that a source may have instead of a canonical one, which is then computed: age from the
#: birth date, body mass index from weight and height. They are not stored.
AUXILIARY: Mapping[str, tuple[str, ...]] = {"clinical": ("birth_date", "weight_kg", "height_cm")}
#: Factor from a unit of a source to the unit of the canonical column.
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


_END_ADVICE = (
    "`coverage.end` is the last day with complete registry data: ask the registry, for later "
    "events count as absent. See docs/linkage.md for an example."
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnMapping(_Section):
    """Source of a canonical column: a column with codes and unit, or a constant."""

    column: str | None = None
    constant: str | None = None
    codes: dict[str, str] = Field(default_factory=dict)
    unit: str = ""

    @model_validator(mode="after")
    def _one_source(self) -> ColumnMapping:
        if (self.column is None) == (self.constant is None):
            raise ValueError("give either `column` or `constant`")
        if self.unit not in UNITS:
            raise ValueError(f"unit {self.unit!r} is not one of {', '.join(filter(None, UNITS))}")
        return self


def _short_forms(columns: Any) -> Any:
    """Columns of a mapping, where a text stands for the name of a source column."""
    if not isinstance(columns, dict):
        return columns
    return {
        n: {"column": given} if isinstance(given, str) else given for n, given in columns.items()
    }


Columns = Annotated[dict[str, ColumnMapping], BeforeValidator(_short_forms)]


def _with_number(column: str, n: int) -> str:
    return re.sub(r"\{n(:0?([1-9]))?\}", lambda m: str(n).zfill(int(m[2] or 1)), column)


class Repeated(_Section):
    """Numbered source columns, each of which gives a row: `DX{n}` for n from 1 to `count`.

    `DX{n:02}` stands for DX01, DX02 and so on.

    With a `count` of 1 the names need no number: a column of its own, such as that of the main
    diagnosis, next to the numbered ones.
    """

    count: int = Field(default=1, ge=1, le=200)
    columns: Columns

    @model_validator(mode="after")
    def _numbered(self) -> Repeated:
        names = [item.column for item in self.columns.values() if item.column is not None]
        plain = [name for name in names if "{n" not in name]
        if plain and self.count > 1:
            raise ValueError(f"`{plain[0]}` has no {{n}} for the number")
        if not names:
            raise ValueError("a group of constants has no column")
        return self

    def numbered(self, n: int) -> dict[str, ColumnMapping]:
        """The columns of one number."""
        return {
            name: item
            if item.column is None
            else item.model_copy(update={"column": _with_number(item.column, n)})
            for name, item in self.columns.items()
        }


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _meanings(item: ColumnMapping) -> set[str]:
    """The canonical codes that a column can have by its mapping."""
    constant = {item.constant} if item.constant is not None and not item.codes else set()
    return set(item.codes.values()) | constant


class Source(_Section):
    """Files of one kind, and how to read them.

    `files` is a file name, or a pattern if no file has that literal name. `dates` are strptime
    formats; ISO dates are accepted too. `missing` lists texts that mean "no value". Lines that are
    not valid in `encoding` are decoded with `fallback_encoding`. Rows in which a column of
    `rows_with` is empty are left out: one file can hold, say, all patients and the deaths of some.
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
    rows_with: tuple[str, ...] = ()
    columns: Columns
    repeated: tuple[Repeated, ...] = ()

    @model_validator(mode="after")
    def _readable(self) -> Source:
        for encoding in (self.encoding, self.fallback_encoding):
            try:
                "".encode(encoding)  # some codecs, such as `hex`, are not text encodings
            except LookupError:
                raise ValueError(f"there is no encoding {encoding!r}") from None
        for form in self.dates:
            if re.search(r"%[zZ].*[^ ]", form):
                raise ValueError(f"the offset must be the end of the date format {form!r}")
        if self.delimiter in '"\r\n\0':
            raise ValueError(f"{self.delimiter!r} is not a delimiter")
        return self

    @model_validator(mode="after")
    def _known_columns(self) -> Source:
        spec = _TABLES[self.table]
        known = {column.name for column in spec.columns} | set(AUXILIARY.get(self.table, ()))
        given = {name for name, _ in self.mapped}
        needed = {column.name for column in spec.columns if not column.nullable}
        faults = []
        if given - known:
            unknown = ", ".join(sorted(given - known))
            faults.append(f"`{self.table}` has no column {unknown}; it has {_listed(known)}")
        if needed - given:
            faults.append(f"column {_listed(needed - given)} is not mapped")
        if set(self.rows_with) - given:
            faults.append(f"`rows_with` names {_listed(set(self.rows_with) - given)}, not mapped")
        allowed = {c.name: c.allowed for c in spec.columns if c.allowed}
        faults += [
            f"`{name}` cannot be {wrong!r}; it is {', '.join(allowed[name])}"
            for name, item in self.mapped
            if name in allowed
            for wrong in sorted(_meanings(item) - set(allowed[name]))[:1]
        ]
        if faults:
            raise ValueError("; ".join(dict.fromkeys(faults)))
        return self

    @model_validator(mode="after")
    def _one_meaning(self) -> Source:
        """Codes are by canonical column, so groups of columns must agree on them."""
        meanings: dict[tuple[str, str], str] = {}
        for name, item in self.mapped:
            for code, meaning in item.codes.items():
                if meanings.setdefault((name, code), meaning) != meaning:
                    raise ValueError(f"`{name}` gives two meanings to the code {code!r}")
        return self

    @property
    def mapped(self) -> list[tuple[str, ColumnMapping]]:
        """Every canonical column and its source, also those in groups of numbered columns."""
        groups = [pair for group in self.repeated for pair in group.columns.items()]
        return [*self.columns.items(), *groups]

    @property
    def codes(self) -> dict[str, dict[str, str]]:
        """Codes by canonical column."""
        found: dict[str, dict[str, str]] = {}
        for name, item in self.mapped:
            if item.codes:
                found[name] = found.get(name, {}) | item.codes
        return found

    @property
    def unused(self) -> list[str]:
        """Columns that have no effect, since a group of numbered columns gives the same."""
        grouped = {name for group in self.repeated for name in group.columns}
        return sorted(grouped & set(self.columns))

    @property
    def field_delimiter(self) -> str:
        """Character between the fields of a text file."""
        return "\t" if self.format == "tsv" else self.delimiter

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of all columns that the source's files must have."""
        plain = list(self.columns.values())
        numbered = [
            item
            for group in self.repeated
            for n in range(1, group.count + 1)
            for item in group.numbered(n).values()
        ]
        names = [item.column for item in plain + numbered if item.column is not None]
        return tuple(dict.fromkeys(names))

    @property
    def digest(self) -> str:
        """SHA-256 over everything that affects how the files are read."""
        text = json.dumps(self.model_dump(mode="json", exclude={"files"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Coverage(_Section):
    """Period in which the registry observed its population; events outside it do not count."""

    begin: dt.date | None = None
    end: dt.date


class Rules(_Section):
    """Limits and requirements of a linkage.

    `window_days`: largest difference between study dates of archive and registry. `required`:
    covariates without which a patient is excluded; all others may be missing. `quarantine_limit`:
    largest share of a source's lines in quarantine. `min_match_rate`: smallest share of clinical
    rows or studies, whichever are fewer, that must match. `shift_dates`: shift all dates of a
    patient by a secret number of days; intervals stay exact.
    """

    window_days: int = Field(default=3, ge=0, le=365)
    required: tuple[str, ...] = ("age_years", "sex")
    quarantine_limit: float = Field(default=0.05, ge=0, le=1)
    min_match_rate: float = Field(default=0.05, ge=0, le=1)
    shift_dates: bool = False


class SiteMapping(_Section):
    """A mapping file."""

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
        If it cannot be read, or has an unknown key, column, code or unit.
    """
    values = read_toml(
        path, "The mapping", "Draft one from an extract with: cac link --propose FILE"
    )
    try:
        return SiteMapping.model_validate(values)
    except ValidationError as error:
        faults = [
            f"{_place(fault['loc'], values)}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise UsageError(
            f"The mapping {path}: {'; '.join(faults)}.",
            _END_ADVICE
            if any("coverage" in fault["loc"] for fault in error.errors())
            else "See docs/linkage.md for an example.",
        ) from None


def _place(location: tuple[int | str, ...], values: dict[str, Any]) -> str:
    """Location of an error: the name of the source instead of its index, then the key."""
    if len(location) > 1 and location[0] == "source" and isinstance(location[1], int):
        name = values["source"][location[1]].get("name", f"number {location[1] + 1}")
        return ".".join([f"source {name}", *map(str, location[2:])])
    return ".".join(map(str, location)) or "the file"
