"""What the columns of an extract hold: dates, numbers, codes of a system, or one of a few words."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from cac_core.cohort.code_words import MEANINGS
from cac_core.cohort.database import Resources, database, sql_identifier
from cac_core.cohort.extract_rows import head_of, load_rows
from cac_core.cohort.extracts import Extract
from cac_core.cohort.mapping import AUXILIARY, ColumnMapping, Source
from schemas.registry import AUXILIARY_RANGES, REGISTRY_TABLES
from schemas.table import ColumnSpec

DATE_FORMATS = (
    *("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%d%b%Y", "%d-%b-%Y", "%d.%m.%Y", "%d.%m.%y"),
    *("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%d/%m/%y", "%m/%d/%y", "%d.%m.%Y %H:%M"),
    *("%d.%m.%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M"),
)
#: Smallest share of a column's dates that its format must read.
READ_SHARE = 0.95
#: Smallest share of a column's values that must have its form, for the header to be believed.
_FITTING_SHARE = 0.5
_FEW = 12
_SAMPLE_ROWS, _SAMPLE_VALUES, _TESTED_VALUES = 20_000, 3_000, 300
_MISSING = ("", "NA", "N/A", "NULL", ".")
_NUMBER = r"[+-]?(\d+[.,]?\d*|[.,]\d+)"
_ICD_10 = r"D?[A-TV-Z]\d[0-9A-Z](\.?[0-9A-Z]{1,4})?\.?-?[+*!#]?"
_ICD_9 = r"(\d{3}|V\d\d)(\.\d{1,2})?|\d{4,5}|E\d{3}(\.\d)?"
#: Forms of procedure codes as registries write them, the more particular first.
_PROCEDURES = {
    "OPS": r"[1-9]-\d{2}[0-9a-zA-Z](\.[0-9a-zA-Z]{1,3})?",
    "CCI": r"[1-8]\.?[A-Z]{2}\.?\d{2}(\.?[A-Z]{2}.*)?",
    "ICD-9-CM": r"\d{2}\.\d{1,2}",
    "CPT": r"\d{5}",
    "NOMESCO": r"K?[A-Z]{3}\d{2}[A-Z]?",
    "OPCS-4": r"[A-Z]\d{2}(\.\d)?",
    "ICD-10-PCS": r"[0-9B-DF-HX][0-9A-HJ-NP-Z]{6}",
}
_ICD_COLUMNS = ("diagnosis_code", "main_diagnosis", "other_diagnosis")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an extract: its name, and distinct values of the first rows, sorted."""

    name: str
    values: tuple[str, ...]

    def share(self, pattern: str) -> float:
        """Share of the values that match a regular expression; 0 without values."""
        tested = self.tested
        return sum(bool(re.fullmatch(pattern, v)) for v in tested) / max(len(tested), 1)

    @property
    def tested(self) -> tuple[str, ...]:
        """Evenly spaced values, enough to tell what a column holds."""
        return self.values[:: max(1, len(self.values) // _TESTED_VALUES)]

    @property
    def is_coded(self) -> bool:
        """Whether it holds one of a few words."""
        return 0 < len(self.values) <= _FEW

    def dates(self, form: str) -> list[dt.date]:
        """The tested values that a format reads as a plausible day."""
        return [day for text in self.tested if (day := _date(text, form)) is not None]

    def date_share(self, form: str) -> float:
        """Share of the values that a date format reads."""
        return len(self.dates(form)) / max(len(self.tested), 1)

    @property
    def is_date(self) -> bool:
        """Whether some format reads most values."""
        return any(self.date_share(form) >= _FITTING_SHARE for form in DATE_FORMATS)

    @property
    def procedure_system(self) -> str | None:
        """Coding system whose form nearly all values have."""
        fits = [s for s, form in _PROCEDURES.items() if self.share(form) >= READ_SHARE]
        return fits[0] if fits else None

    @property
    def is_icd_9(self) -> bool:
        """Whether the values are diagnoses in the form of ICD-9-CM."""
        return self.share(_ICD_9) >= READ_SHARE

    @property
    def is_icd_10(self) -> bool:
        """Whether the values are diagnoses in the form of ICD-10, several different ones."""
        return len(self.values) > 3 and self.share(_ICD_10) >= READ_SHARE


def read_columns(source: Source, path: Path, header: Sequence[str]) -> dict[str, Column]:
    """Distinct values of each column in the first rows of a file."""
    columns = {name: ColumnMapping(column=name) for name in header}
    whole = source.model_copy(update={"columns": columns})
    with database(Resources()) as (connection, scratch):
        extract = head_of(Extract(whole, path, ""), scratch, _SAMPLE_ROWS)
        load_rows(connection, extract, scratch)
        return {name: Column(name, _distinct_values(connection, name)) for name in header}


def _distinct_values(connection: duckdb.DuckDBPyConnection, name: str) -> tuple[str, ...]:
    quoted = sql_identifier(name)
    rows = connection.sql(
        f"SELECT DISTINCT {quoted} FROM file_rows WHERE {quoted} IS NOT NULL ORDER BY 1 "
        f"LIMIT {_SAMPLE_VALUES}"
    ).fetchall()
    return tuple(value for (value,) in rows if value not in _MISSING)


def spec_of(name: str) -> ColumnSpec | None:
    """Description of a canonical column, or of one that such a column is computed from."""
    everything = (*(c for table in REGISTRY_TABLES for c in table.columns), *AUXILIARY_RANGES)
    return next((column for column in everything if column.name == name), None)


def is_date_column(name: str) -> bool:
    """Whether a canonical column holds dates."""
    spec = spec_of(name)
    if spec is None:
        return name == "birth_date" and any(name in given for given in AUXILIARY.values())
    return str(spec.type).startswith("date")


def can_be(name: str, column: Column) -> bool:
    """Whether the values of a column can be those of a canonical one; empty columns always can."""
    if not column.values:
        return True
    spec = spec_of(name)
    if is_date_column(name):
        return column.is_date
    if name in _ICD_COLUMNS:
        form = f"{_ICD_10}|{_ICD_9}" if name == "diagnosis_code" else _ICD_10
        return column.share(form) >= _FITTING_SHARE or not (column.is_date or column.is_coded)
    if name == "procedure_code":
        return not column.is_date
    if name in ("patient_id", "accession_number"):
        return not column.is_date and not column.is_icd_10
    if spec is not None and str(spec.type) == "double":
        return column.share(_NUMBER) >= _FITTING_SHARE and not _is_compact_date(column)
    if spec is not None and (spec.unit == "0/1" or spec.codes is not None):
        return column.is_coded and not column.is_date
    return True


def found_by_content(name: str, columns: Sequence[Column]) -> list[Column]:
    """Columns whose values alone tell that they are this canonical column."""
    if name == "diagnosis_code":
        return [c for c in columns if c.is_icd_10 and not c.is_date]
    if name == "sex":
        words = MEANINGS["sex"]
        return [
            c for c in columns if {words.get(v.lower()) for v in c.values} - {None} == {"M", "F"}
        ]
    if name == "procedure_code":
        return [c for c in columns if c.procedure_system in ("OPS", "CCI")]
    return []


def _is_compact_date(column: Column) -> bool:
    return column.date_share("%Y%m%d") >= _FITTING_SHARE


def _date(text: str, form: str) -> dt.date | None:
    with contextlib.suppress(ValueError):
        day = dt.datetime.strptime(text, form).date()
        return day if 1880 <= day.year < 2200 else None
    return None
