"""The lines of one `[[source]]` of a drafted mapping, with comments where a person must decide."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence

from cac_core.cohort.code_words import (
    TYPE_MEANINGS,
    UNKNOWN,
    is_known_coding,
    known_codes,
    yes_no_codes,
)
from cac_core.cohort.column_content import (
    DATE_FORMATS,
    READ_SHARE,
    Column,
    is_date_column,
    spec_of,
)
from cac_core.cohort.disclosure import value_shape
from cac_core.cohort.gaps import PRIOR_DISEASE
from cac_core.cohort.header_words import SYSTEM_WORDS, folded
from cac_core.cohort.mapping import Source
from cac_core.cohort.table_choice import TableFit
from schemas.registry import REGISTRY_TABLES

#: Diagnosis types of the shipped outcomes.
_DAD_TYPES = frozenset("M126WXY")
#: What a file with no column for it says about its readings.
_READINGS = {"reader": "1", "method": "expert"}
_MOST_UNKNOWN = 8
#: Columns of a table beside the main one that tell whether a row has anything of it.
_PRESENT = {"deaths": ("death_date",), "readings": ("agatston", "visual_grade")}


def quoted(text: str) -> str:
    """Text as a TOML string."""
    return json.dumps(text, ensure_ascii=False)


def source_lines(
    name: str, files: str, source: Source, fit: TableFit, unused: Sequence[str], *, beside: bool
) -> list[str]:
    """Draft a source.

    Parameters
    ----------
    files : name or pattern of its files.
    unused : columns of the file that no table uses.
    beside : whether the file is another table first, so that rows may have nothing of this one.
    """
    if fit.table.name == "readings" and "method" not in fit.columns:
        both = [n for n in ("agatston", "visual_grade") if n in fit.columns]
        if len(both) > 1:
            return _two_readings(name, files, source, fit, unused)
    others = ", ".join(other.name for other in REGISTRY_TABLES if other != fit.table)
    lines = [
        "[[source]]",
        f'name = "{name}"',
        f'table = "{fit.table.name}"  # or {others}',
        f"files = {quoted(files)}",
        f'format = "{source.format}"',
    ]
    if source.format == "csv":
        lines.append(f"delimiter = {quoted(source.delimiter)}")
    if source.format in ("csv", "tsv"):
        lines.append(f'encoding = "{source.encoding}"')
    lines += [*_decimal(fit), *_dates(fit), *_missing(fit), *_rows_with(fit, beside=beside)]
    lines += ["[source.columns]", *_column_lines(fit), *_repeated(fit)]
    if unused:
        lines.append(f"# Not used: {', '.join(unused)}")
    return lines


def newest_date(fit: TableFit) -> dt.date | None:
    """Newest plausible day of a table's records in the first rows."""
    wanted = [c for n in ("admit_date", "death_date") for c in fit.columns.get(n, ())]
    today = dt.date.today()
    days = [day for c in wanted for day in c.dates(_best_form(c)) if day <= today]
    return max(days, default=None)


def _two_readings(
    name: str, files: str, source: Source, fit: TableFit, unused: Sequence[str]
) -> list[str]:
    """A source for the scores of the expert and one for the visual grades of the same file."""
    lines: list[str] = []
    for n, (column, method) in enumerate((("agatston", "expert"), ("visual_grade", "visual"))):
        other = "visual_grade" if column == "agatston" else "agatston"
        columns = {key: given for key, given in fit.columns.items() if key != other}
        half = TableFit(fit.table, columns)
        drafted = source_lines(
            f"{name}-{method}", files, source, half, [] if n else unused, beside=True
        )
        lines += [*([""] if n else []), *drafted]
    return lines


def _all_columns(fit: TableFit) -> list[tuple[str, Column]]:
    return [(name, column) for name, columns in fit.columns.items() for column in columns]


def _decimal(fit: TableFit) -> list[str]:
    """The line `decimal`, if numbers have a comma."""
    numbers = [
        value
        for name, column in _all_columns(fit)
        if (spec := spec_of(name)) is not None and str(spec.type) == "double"
        for value in column.values
    ]
    commas = sum(re.fullmatch(r"[+-]?\d*,\d+", value) is not None for value in numbers)
    points = sum(re.fullmatch(r"[+-]?\d*\.\d+", value) is not None for value in numbers)
    if not commas:
        return []
    note = f"  # {points} numbers have a point: these go to quarantine" if points else ""
    return [f'decimal = "{"," if commas >= points else "."}"{note}']


def _best_form(column: Column) -> str:
    """The format that reads most values; of those that read equally many, the first."""
    return max(DATE_FORMATS, key=column.date_share)


def _dates(fit: TableFit) -> list[str]:
    """The line `dates`, with formats that read the values of the date columns."""
    dated = [c for name, c in _all_columns(fit) if is_date_column(name) and c.values]
    if not dated:
        return []
    together = Column("", tuple(value for column in dated for value in column.tested))
    reading = [form for form in DATE_FORMATS if together.date_share(form) >= READ_SHARE]
    if reading:
        line = f'dates = ["{reading[0]}"]'
        if len(reading) > 1:
            line += f"  # {reading[1]} reads the first rows too: which is it?"
        return [line]
    forms = list(dict.fromkeys(_best_form(column) for column in dated))
    unread = [c.name for c in dated if max(map(c.date_share, forms)) < READ_SHARE]
    line = f"dates = [{', '.join(map(quoted, forms))}]"
    if unread:
        line += f"  # no common format reads all of {', '.join(unread)}; write strptime formats"
    return [line]


def _missing(fit: TableFit) -> list[str]:
    """The line `missing`, if yes/no columns have words for "not known"."""
    if fit.table.name != "clinical":
        return []
    words = [
        value
        for name, column in _all_columns(fit)
        if (spec := spec_of(name)) is not None and spec.unit == "0/1"
        for value in column.values
        if value.lower() in UNKNOWN and len(value) > 1
    ]
    listed = ", ".join(map(quoted, ("", "NA", "N/A", "NULL", ".", *dict.fromkeys(words))))
    return [f"missing = [{listed}]"] if words else []


def _rows_with(fit: TableFit, *, beside: bool) -> list[str]:
    wanted = [name for name in _PRESENT.get(fit.table.name, ()) if name in fit.columns]
    if not beside or len(wanted) != 1:
        return []
    return [f'rows_with = ["{wanted[0]}"]  # rows without it are no {fit.table.name}']


def _column_lines(fit: TableFit) -> list[str]:
    """Single columns, the system of procedures, and required columns that were not found."""
    grouped = {name for name, columns in fit.columns.items() if len(columns) > 1}
    grouped |= {"main_diagnosis", "other_diagnosis"}
    single = {n: c[0] for n, c in fit.columns.items() if n not in grouped}
    lines = [_column_line(name, column) for name, column in single.items()]
    lines += _systems(fit)
    for group in fit.lacking:
        if not set(group) & {c.name for c in fit.table.columns if not c.nullable}:
            lines.append(f"# none of {', '.join(group)} was recognised; name one of them")
    for column in fit.table.columns:
        if column.name in fit.columns:
            continue
        if column.name in PRIOR_DISEASE:
            disease = PRIOR_DISEASE[column.name]
            lines.append(
                f'# {column.name} = ""  # DECIDE: no column looks like it; without it, an earlier '
                f"{disease} excludes nobody"
            )
        if column.nullable:
            continue
        if fit.table.name == "readings" and column.name in _READINGS:
            given = _READINGS[column.name]
            if column.name == "method" and "agatston" not in fit.columns:
                given = "visual"
            lines.append(f'{column.name} = {{ constant = "{given}" }}  # or its column')
        else:
            lines.append(f'# {column.name} = ""  # required; no column looks like it')
    return lines


def _systems(fit: TableFit) -> list[str]:
    """The coding systems that the values, or the header, tell."""
    lines = []
    if "procedure_code" in fit.columns and "procedure_system" not in fit.columns:
        columns = fit.columns["procedure_code"]
        together = Column("", tuple(value for column in columns for value in column.values))
        named = [s for s, form in SYSTEM_WORDS.items() if re.search(form, folded(columns[0].name))]
        system = named[0] if named else together.procedure_system
        if system is not None:
            lines.append(f'procedure_system = {{ constant = "{system}" }}')
        else:
            lines.append('# procedure_system = { constant = "OPS" }  # the system of the codes')
    coded = [c for n in ("diagnosis_code", "main_diagnosis") for c in fit.columns.get(n, ())]
    if coded and "diagnosis_system" not in fit.columns and all(c.is_icd_9 for c in coded):
        lines.append('diagnosis_system = { constant = "ICD-9-CM" }')
    return lines


def _column_line(name: str, column: Column) -> str:
    if name == "diagnosis_type":
        given, note = _types([column])
        return f"{name} = {_given(column.name, given)}{note}"
    spec = spec_of(name)
    yes_no = spec is not None and spec.unit == "0/1"
    if spec is None or not (yes_no or spec.codes is not None) or not column.is_coded:
        unit = _unit(name, column)
        if unit:
            return f'{name} = {{ column = {quoted(column.name)}, unit = "{unit}" }}'
        return f"{name} = {quoted(column.name)}"
    allowed = ("0", "1") if yes_no else spec.allowed
    values = [v for v in column.values if not (yes_no and v.lower() in UNKNOWN and len(v) > 1)]
    meant = yes_no_codes(values) if yes_no else known_codes(name, values, allowed)
    line = f"{name} = {_given(column.name, {v: m for v, m in meant.items() if m != v})}"
    unknown = [v for v in values if v not in meant]
    if unknown:
        line += f"  # unknown: {_shown(unknown)}; add to codes ({', '.join(allowed)}) or missing"
    return line


def _given(column: str, codes: Mapping[str, str]) -> str:
    """A column of a mapping, with its codes if there are any."""
    if not codes:
        return quoted(column)
    listed = ", ".join(f"{quoted(value)} = {quoted(code)}" for value, code in sorted(codes.items()))
    return f"{{ column = {quoted(column)}, codes = {{ {listed} }} }}"


def _shown(values: Sequence[str]) -> str:
    """Values that are common codes, and the shapes of the others."""
    shown = dict.fromkeys(v if is_known_coding(v) else value_shape(v) for v in values)
    listed = list(shown)[:_MOST_UNKNOWN]
    return ", ".join(listed) + (", ..." if len(shown) > _MOST_UNKNOWN else "")


def _types(columns: Sequence[Column]) -> tuple[dict[str, str], str]:
    """Codes of diagnosis types, and a comment about those that are not known."""
    values = sorted({value for column in columns for value in column.values})
    if {value.upper() for value in values} & _DAD_TYPES - {"X"} or not values:
        return {}, ""
    codes = {v: TYPE_MEANINGS[v.lower()] for v in values if v.lower() in TYPE_MEANINGS}
    unknown = [v for v in values if v not in codes]
    note = "  # M: main diagnosis of the stay, 1: other diagnosis of it"
    return codes, note + (f"; unknown: {_shown(unknown)}" if unknown else "")


def _unit(name: str, column: Column) -> str:
    header = folded(column.name)
    numbers = [float(v.replace(",", ".")) for v in column.tested if re.fullmatch(r"\d+[.,]?\d*", v)]
    middle = sorted(numbers)[len(numbers) // 2] if numbers else 0.0
    if name == "weight_kg" and re.search(r"lbs?$", header):
        return "lb"
    if name == "height_cm" and re.search(r"in$", header):
        return "in"
    if name == "height_cm" and 1 < middle < 2.5:
        return "m"
    if name == "stress_lvef_pct" and 0 < middle <= 1:
        return "share"
    return ""


def _repeated(fit: TableFit) -> list[str]:
    """Groups of columns that each give a row: main diagnosis, numbered columns."""
    lines = []
    for name, kind in (("main_diagnosis", "M"), ("other_diagnosis", "1")):
        if name in fit.columns:
            constant = f'diagnosis_type = {{ constant = "{kind}" }}'
            lines += _group(fit.columns[name], {"diagnosis_code": fit.columns[name]}, constant)
    numbered = {
        name: columns
        for name, columns in fit.columns.items()
        if len(columns) > 1 and name != "other_diagnosis"
    }
    groups: dict[tuple[str, ...], dict[str, list[Column]]] = {}
    for name, columns in numbered.items():
        numbers = tuple(re.findall(r"\d+$", column.name)[0] for column in columns)
        groups.setdefault((name.split("_")[0], *numbers), {})[name] = columns
    for members in sorted(groups.values(), key=lambda m: -len(next(iter(m.values())))):
        lines += _group(next(iter(members.values())), members, "")
    return lines


def _group(
    columns: Sequence[Column], members: Mapping[str, list[Column]], constant: str
) -> list[str]:
    """One `[[source.repeated]]`."""
    numbers = [re.findall(r"\d+$", column.name) for column in columns]
    alone = len(columns) == 1
    width = 0 if alone or not numbers[0][0].startswith("0") else len(numbers[0][0])
    mark = f"{{n:0{width}}}" if width else "{n}"
    given = []
    note = ""
    for name, listed in members.items():
        column = listed[0].name if alone else re.sub(r"\d+$", mark, listed[0].name)
        codes: dict[str, str] = {}
        if name == "diagnosis_type":
            codes, note = _types(listed)
        given.append(f"{name} = {_given(column, codes)}")
    given += [constant] if constant else []
    lines = ["[[source.repeated]]", f"count = {len(columns)}"]
    lines.append(f"columns = {{ {', '.join(given)} }}{note}")
    if not alone and [int(n[0]) for n in numbers] != list(range(1, len(columns) + 1)):
        lines.append("# The numbers of these columns are not 1, 2, 3, ...: correct the count")
    return lines
