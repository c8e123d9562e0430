"""Which canonical table an extract holds, and which of its columns are which: header and content.

A column counts as a canonical one if its name is one that registries use for it and its values can
be such values; a few kinds of columns are recognised by their values alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cac_core.cohort.column_content import Column, can_be, found_by_content, is_date_column
from cac_core.cohort.header_words import FILE_WORDS, NAMES, folded, name_pattern
from cac_core.cohort.mapping import AUXILIARY
from schemas.registry import REGISTRY_TABLES
from schemas.table import TableSpec

#: Columns that make a file one of the table: at least one of each group.
_ESSENTIAL: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "clinical": (
        ("patient_id",),
        ("study_date",),
        ("age_years", "birth_date", "sex", "bmi_kg_m2", "hypertension", "diabetes", "smoking"),
    ),
    "perfusion": (
        ("patient_id",),
        ("study_date",),
        ("stress_tpd_pct", "rest_tpd_pct", "stress_lvef_pct"),
    ),
    "encounters": (
        ("patient_id",),
        ("admit_date", "procedure_date"),
        ("diagnosis_code", "main_diagnosis", "other_diagnosis", "procedure_code"),
    ),
    "deaths": (("patient_id",), ("death_date",)),
    "follow_up": (("patient_id",), ("coverage_end", "emigration_date")),
    "readings": (("patient_id",), ("study_date",), ("agatston", "visual_grade")),
}
#: Tables that a file of another table can hold as well, in columns of their own.
_BESIDE = ("perfusion", "readings", "deaths", "follow_up")
#: Columns that a file's tables share.
_SHARED = ("patient_id", "study_date")
#: Columns that only one table has tell more than a date or a number.
_TELLING = 3
#: Columns of a group of diagnoses that canonical tables do not have.
DIAGNOSES = ("main_diagnosis", "other_diagnosis")
#: Names that could be of any date; they count only if nothing else is left.
_ANY_DATE = re.compile(r"date|datum|dato|fecha")


@dataclass(frozen=True, slots=True)
class TableFit:
    """A table of a file, with the source columns of its columns; several if they are numbered."""

    table: TableSpec
    columns: Mapping[str, list[Column]] = field(default_factory=dict)

    @property
    def lacking(self) -> list[tuple[str, ...]]:
        """Groups of columns of which the file has none."""
        groups = _ESSENTIAL[self.table.name]
        return [group for group in groups if not set(group) & self.columns.keys()]

    @property
    def used(self) -> set[str]:
        """Names of the file's columns that the table uses."""
        return {column.name for columns in self.columns.values() for column in columns}


def is_header(names: Sequence[str]) -> bool:
    """Whether a line holds names of columns: one that registries use, and no date."""
    known = [name_pattern(column) for column in NAMES]
    spec_names = {column.name for table in REGISTRY_TABLES for column in table.columns}
    return any(
        name in spec_names or any(pattern.fullmatch(folded(name)) for pattern in known)
        for name in names
    ) and not any(Column("", (name,)).is_date for name in names)


def tables_of(name: str, columns: Sequence[Column]) -> list[TableFit]:
    """The table that fits a file best, and those that it holds beside it; none if nothing fits.

    Parameters
    ----------
    name : name of the file, which decides between tables that fit equally well.
    """
    fits = [fit_table(table, columns) for table in REGISTRY_TABLES]
    best = max(fits, key=lambda fit: _score(fit, name))
    if not best.columns:
        return []
    if best.lacking:
        return [best]
    found = [best]
    for table in REGISTRY_TABLES:
        if table.name not in _BESIDE or table == best.table:
            continue
        shared = [c.name for given in _SHARED for c in best.columns.get(given, ())]
        taken = set().union(*(fit.used for fit in found)) - set(shared)
        beside = fit_table(table, [c for c in columns if c.name not in taken])
        own = {c.name for n, listed in beside.columns.items() if n not in _SHARED for c in listed}
        if not beside.lacking and not own & set(shared):
            found.append(beside)
    return found


def fit_table(table: TableSpec, columns: Sequence[Column]) -> TableFit:
    """Source columns of a table's columns, by name, then by content."""
    names = [c.name for c in table.columns] + list(AUXILIARY.get(table.name, ()))
    names = [*DIAGNOSES, *names] if table.name == "encounters" else names
    found: dict[str, list[Column]] = {}
    taken: set[str] = set()
    for certain in (True, False):
        for name in names:
            if name in found:
                continue
            left = [c for c in columns if c.name not in taken]
            chosen = _by_name(name, left) if certain else _otherwise(name, left, found)
            if chosen:
                found[name] = chosen
                taken.update(column.name for column in chosen)
    return TableFit(table, found)


def _by_name(name: str, columns: Sequence[Column]) -> list[Column]:
    pattern = name_pattern(name)
    fits = [c for c in columns if pattern.fullmatch(folded(c.name)) and can_be(name, c)]
    fits = [c for c in fits if not _ANY_DATE.fullmatch(folded(c.name))]
    fits = [c for c in fits if c.name == name] or fits
    numbers = [c for c in fits if re.search(r"\d$", c.name)]
    return numbers if len(numbers) > 1 else fits[:1]


def _otherwise(
    name: str, columns: Sequence[Column], found: Mapping[str, list[Column]]
) -> list[Column]:
    """A column that only its content, or being the only date, gives away."""
    if name == "diagnosis_code" and set(DIAGNOSES) & found.keys():
        return []
    if name in ("study_date", "admit_date", "death_date") and is_date_column(name):
        return [c for c in columns if _ANY_DATE.fullmatch(folded(c.name)) and c.is_date][:1]
    return found_by_content(name, columns)[:1]


def _score(fit: TableFit, file: str) -> float:
    """Columns found, with those of only one table counting more, less what is lacking."""
    telling = {n for group in _ESSENTIAL[fit.table.name][1:] for n in group} - set(_SHARED)
    points = sum(_TELLING if name in telling else 1 for name in fit.columns)
    named = re.search(FILE_WORDS[fit.table.name], folded(file)) is not None
    return points - 2 * _TELLING * len(fit.lacking) + (0.5 if named and fit.columns else 0)
