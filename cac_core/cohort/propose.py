"""Draft of a mapping for a new extract, from its header and codes.

A person must check the draft: column names are compared with names that registries commonly use,
and date formats and codes are guessed from the first rows. No identifier is printed.
"""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from cac_core.cohort.database import Resources, database, sql_identifier
from cac_core.cohort.disclosure import value_shape
from cac_core.cohort.extract_rows import load_rows, read_header
from cac_core.cohort.extracts import Extract, open_packed
from cac_core.cohort.mapping import AUXILIARY, ColumnMapping, Source
from cac_core.errors import UsageError
from schemas.registry import REGISTRY_TABLES
from schemas.table import TableSpec

#: Common names of the canonical columns in registries: regular expressions over the name in lower
#: case, reduced to letters and digits.
_NAMES: Mapping[str, str] = {
    "patient_id": r"(patient|pat|person|phn|mrn|hcn|nhsnumber|chinumber|fallnr|subject)"
    r"(id|nr|no|number|key)?|id|studyid",
    "study_date": r"(study|scan|exam|test|spect|ct|index|untersuchung)s?(date|datum|dt)|datum",
    "accession_number": r"(accession|acc|order|auftrag)s?(number|no|nr|nummer)?",
    "birth_date": r"(birth|geburts?)(date|datum)?|dob|dateofbirth",
    "age_years": r"age(years|atscan|yrs)?|alter",
    "sex": r"sex|gender|geschlecht",
    "bmi_kg_m2": r"bmi(kgm2)?|bodymassindex",
    "weight_kg": r"(weight|wt|gewicht)(kg|lb|lbs)?",
    "height_cm": r"(height|ht|groesse|grosse)(cm|in|m)?",
    "hypertension": r"(hx|v)?(hypertension|htn|hypertonie|arterialhypertension)",
    "diabetes": r"(hx|v)?(diabetes(mellitus)?|dm)",
    "dyslipidemia": r"(hx|v)?(dyslipida?emia|hyperlipida?emia|lipids|dlp)",
    "family_history": r"(hx|v)?(familyhistory|fhx|famhx|familyhx).*",
    "smoking": r"(hx|v)?(smok(ing|er)|currentsmok(ing|er)|raucher)",
    "prior_mi": r"(hx|v)?(prior|previous|old)?(mi|myocardialinfarction)",
    "prior_pci": r"(hx|v)?(prior|previous)?(pci|ptca|stent)",
    "prior_cabg": r"(hx|v)?(prior|previous)?(cabg|bypass)",
    "stress_tpd_pct": r"(ac)?stresstpd(ac|pct)*|tpdstress",
    "rest_tpd_pct": r"(ac)?resttpd(ac|pct)*|tpdrest",
    "stress_lvef_pct": r"(stress)?(lvef|ef)(stress|pct)*",
    "admit_date": r"(admi(t|ssion)|aufnahme|start|visit|encounter|begin)s?(date|datum|dt)?",
    "discharge_date": r"(dis(charge)?|entlassungs?|stop|end)(date|datum|dt)?",
    "record_type": r"(record|encounter|visit|care|level|institution)?(type|class|level|setting)"
    r"|art|setting|level",
    "diagnosis_code": r"(dx|diag(nosis)?|icd(10)?)(code)?(\d+)?",
    "diagnosis_type": r"(dx|diag(nosis)?)(type|role|prefix)(\d+)?|typ",
    "procedure_code": r"(px|proc(edure)?|interv(ention)?|ops|opcs|cci)(code)?(\d+)?",
    "procedure_date": r"(px|proc(edure)?|interv(ention)?|op)(date|datum|dt)(\d+)?",
    "death_date": r"(death|dod|deceased|died|tod|sterbe)(date|datum|dt)?|dateofdeath",
    "coverage_end": r"(coverage|covered|observed|followup|lastcontact)(end|to|until|date)?|bis",
    "emigration_date": r"(emigration|moved|left|lefton|wegzug|outmigration)(date|on|dt)?",
    "reader": r"reader|observer|read(er)?by|befunder",
    "method": r"method|readingtype",
    "agatston": r"(total)?(agatston|cacs?|calciumscore)(score|total)?",
    "visual_grade": r"visual(cac|grade|score)?|grade",
}
_DATES = (
    *("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%d%b%Y", "%d-%b-%Y"),
    *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y"),
)
#: Smallest share of a file's dates that its date format must parse.
_READ_SHARE = 0.95
_YES_NO = (
    *(("Y", "N"), ("y", "n"), ("yes", "no"), ("Yes", "No"), ("YES", "NO"), ("T", "F")),
    *(("true", "false"), ("True", "False"), ("ja", "nein"), ("J", "N"), ("oui", "non")),
)
_MEANINGS: Mapping[str, Mapping[str, str]] = {
    "sex": {"m": "M", "male": "M", "f": "F", "w": "F", "female": "F"},
    "record_type": {
        **dict.fromkeys(("d", "ip", "i", "inpatient", "stationär"), "inpatient"),
        **dict.fromkeys(("e", "ed", "er", "emergency", "notfall"), "emergency"),
        **dict.fromkeys(("a", "op", "o", "ambulatory", "outpatient", "ambulant"), "ambulatory"),
    },
}
_MISSING = ("", "NA", "N/A", "NULL", ".")
_SAMPLE_ROWS = 10_000
_FORMATS = {".parquet": "parquet", ".xlsx": "excel", ".xls": "excel", ".ods": "excel"}


def propose_mapping(path: Path) -> str:
    """Draft the mapping of a site with this one extract.

    Returns
    -------
    TOML, with comments where a person must decide.

    Raises
    ------
    UsageError
        If the file cannot be read, or no column of its header is recognised.
    """
    source = _guessed_format(path)
    header = _header(source, path)
    table, found = _best_table(header)
    values = _sample(source, path, header)
    used = {column for columns in found.values() for column in columns}
    unused = [name for name in header if name not in used]
    lines = [
        *_source_lines(source, path, table),
        *_dates(table, found, values),
        *_column_lines(table, found, values),
    ]
    if unused:
        lines += ["", f"# Not used: {', '.join(unused)}"]
    return "\n".join(lines) + "\n"


def _source_lines(source: Source, path: Path, table: TableSpec) -> list[str]:
    """Site, coverage, and the source up to its date formats."""
    others = ", ".join(other.name for other in REGISTRY_TABLES if other != table)
    lines = [
        "# A draft; check every line before use. docs/linkage.md explains the file.",
        'site = "site"  # a short name for this site',
        "",
        "[coverage]",
        f"end = {dt.date.today().year - 1}-12-31  # last day with complete registry data",
        "",
        "[[source]]",
        f'name = "{table.name}"',
        f'table = "{table.name}"  # or {others}',
        f"files = {_quoted(path.name)}",
        f'format = "{source.format}"',
    ]
    if source.format == "csv":
        lines.append(f"delimiter = {_quoted(source.delimiter)}")
    if source.format in ("csv", "tsv"):
        lines.append(f'encoding = "{source.encoding}"')
    return lines


def _column_lines(
    table: TableSpec, found: Mapping[str, list[str]], values: Mapping[str, list[str]]
) -> list[str]:
    """Single columns, missing required columns, and groups of numbered columns."""
    single = {name: columns[0] for name, columns in found.items() if len(columns) == 1}
    numbered = {name: columns for name, columns in found.items() if len(columns) > 1}
    missing = [c.name for c in table.columns if not c.nullable and c.name not in found]
    return [
        "[source.columns]",
        *(_column_line(name, column, values.get(column, [])) for name, column in single.items()),
        *(f'# {name} = ""  # required; no column of the header looks like it' for name in missing),
        *_repeated(numbered),
    ]


def _guessed_format(path: Path) -> Source:
    """A source with guessed format, delimiter and encoding."""
    suffixes = [suffix for suffix in path.suffixes if suffix in (*_FORMATS, ".csv", ".tsv", ".txt")]
    given = _FORMATS.get(suffixes[-1] if suffixes else "", "csv")
    draft = Source.model_construct(name="draft", table="clinical", files=path.name, columns={})
    if given != "csv":
        return draft.model_copy(update={"format": given})
    try:
        with open_packed(path) as stream:
            start = stream.read(1 << 16)
    except (OSError, EOFError) as error:
        raise UsageError(
            f"The extract {path} cannot be read ({type(error).__name__}).",
            "Check the name and the permissions.",
        ) from None
    encoding = _guessed_encoding(start)
    first = start.decode(encoding, "replace").splitlines()[:1]
    try:
        delimiter = csv.Sniffer().sniff("".join(first), ",;\t|").delimiter
    except csv.Error:
        delimiter = ","
    form = {"format": "tsv"} if delimiter == "\t" else {"format": "csv", "delimiter": delimiter}
    return draft.model_copy(update={**form, "encoding": encoding})


def _guessed_encoding(start: bytes) -> str:
    """UTF-8 if most non-ASCII lines are valid; the mapping has a fallback for the others."""
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    lines = [line for line in start.split(b"\n")[:-1] if not line.isascii()]
    fitting = sum(_is_utf8(line) for line in lines)
    return "utf-8" if 2 * fitting >= len(lines) else "cp1252"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _header(source: Source, path: Path) -> list[str]:
    try:
        header = read_header(source, path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The extract {path} cannot be read as {source.format} ({type(error).__name__}).",
            "Check the file.",
        ) from None
    return [name for name in header if name]


def _best_table(header: Sequence[str]) -> tuple[TableSpec, dict[str, list[str]]]:
    """The table that fits the header best, and the source columns of its columns."""
    fits = [(table, _fitting(table, header)) for table in REGISTRY_TABLES]
    table, found = max(fits, key=lambda item: len(item[1]) - 2 * _lacking(*item))
    if not found:
        known = ", ".join(c.name for t in REGISTRY_TABLES[:1] for c in t.columns)
        raise UsageError(
            f"Nothing in the header looks like a known column ({len(header)} names).",
            f"Is the first line the header? The clinical table, for example, has {known}.",
        )
    return table, found


def _lacking(table: TableSpec, found: Mapping[str, list[str]]) -> int:
    return sum(not column.nullable and column.name not in found for column in table.columns)


def _fitting(table: TableSpec, header: Sequence[str]) -> dict[str, list[str]]:
    ours = [c.name for c in table.columns] + list(AUXILIARY.get(table.name, ()))
    found: dict[str, list[str]] = {}
    taken: set[str] = set()
    for name in ours:
        pattern = re.compile(_NAMES.get(name, re.escape(name.replace("_", ""))))
        fits = [n for n in header if n not in taken and pattern.fullmatch(_folded(n))]
        fits = [n for n in fits if n == name] or fits
        numbers = [n for n in fits if re.search(r"\d$", n)]
        chosen = numbers if len(numbers) > 1 else fits[:1]
        if chosen:
            found[name] = chosen
            taken.update(chosen)
    return found


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("ö", "oe").replace("ß", "ss"))


def _sample(source: Source, path: Path, header: Sequence[str]) -> dict[str, list[str]]:
    """Distinct values of each column in the first rows."""
    columns = {name: ColumnMapping(column=name) for name in header}
    whole = source.model_copy(update={"columns": columns})
    with database(Resources()) as (connection, scratch):
        load_rows(connection, Extract(whole, path, ""), scratch)
        return {name: _distinct_values(connection, name) for name in header}


def _distinct_values(connection: duckdb.DuckDBPyConnection, name: str) -> list[str]:
    quoted = sql_identifier(name)
    rows = connection.sql(
        f"SELECT DISTINCT {quoted} FROM (SELECT {quoted} FROM file_rows LIMIT {_SAMPLE_ROWS}) "
        f"WHERE {quoted} IS NOT NULL ORDER BY 1"
    ).fetchall()
    return [value for (value,) in rows if value not in _MISSING]


def _dates(
    table: TableSpec, found: Mapping[str, list[str]], values: Mapping[str, list[str]]
) -> list[str]:
    """The line `dates`, with a format that parses the values of the date columns."""
    dated = {c.name for c in table.columns if str(c.type).startswith("date")} | {"birth_date"}
    texts = [v for name in dated & found.keys() for column in found[name] for v in values[column]]
    if not texts:
        return []
    reading = [form for form in _DATES if _read_share(form, texts) >= _READ_SHARE]
    if not reading:
        return ["dates = []  # no common format parses the dates; write strptime formats"]
    line = f'dates = ["{reading[0]}"]'
    if len(reading) > 1:
        return [f"{line}  # {reading[1]} parses the first rows too: which is it?"]
    return [line]


def _read_share(form: str, texts: Sequence[str]) -> float:
    read = 0
    for text in texts:
        with contextlib.suppress(ValueError):
            dt.datetime.strptime(text, form)
            read += 1
    return read / len(texts)


def _column_line(name: str, column: str, values: Sequence[str]) -> str:
    spec = next((c for t in REGISTRY_TABLES for c in t.columns if c.name == name), None)
    yes_no = spec is not None and spec.unit == "0/1"
    if spec is None or not (yes_no or spec.codes is not None) or len(values) > 8:
        unit = _unit(name, column)
        if unit:
            return f'{name} = {{ column = {_quoted(column)}, unit = "{unit}" }}'
        return f"{name} = {_quoted(column)}"
    allowed = ("0", "1") if yes_no else spec.allowed
    meant = _yes_no_codes(values) if yes_no else _known_codes(name, values, allowed)
    codes = ", ".join(f'{_quoted(v)} = "{m}"' for v, m in sorted(meant.items()) if m != v)
    line = f"{name} = {{ column = {_quoted(column)}, codes = {{ {codes} }} }}"
    if not codes:
        line = f"{name} = {_quoted(column)}"
    unknown = [v for v in values if v not in meant]
    if unknown:
        shown = dict.fromkeys(v if _is_known_coding(v) else value_shape(v) for v in unknown)
        line += f"  # unknown: {', '.join(shown)}; add to codes ({', '.join(allowed)}) or missing"
    return line


def _is_known_coding(value: str) -> bool:
    """Whether a value is a common code, and so cannot identify a person."""
    words = {word for pair in _YES_NO for word in pair}
    words |= {word for known in _MEANINGS.values() for word in known}
    words |= {"unknown", "unbekannt", "other", "none", "missing", "x"}
    return (
        value.lower() in {word.lower() for word in words}
        or re.fullmatch(r"[0-9]", value) is not None
    )


def _yes_no_codes(values: Sequence[str]) -> dict[str, str]:
    """Codes of a yes/no column; includes both words of a pair even if only one occurs."""
    meant = {v: v for v in values if v in ("0", "1")}
    for yes, no in _YES_NO:
        if {yes, no} & set(values) and not {yes, no} & meant.keys():
            meant |= {yes: "1", no: "0"}
    return meant


def _known_codes(name: str, values: Sequence[str], allowed: Sequence[str]) -> dict[str, str]:
    known = _MEANINGS.get(name, {})
    meant = {v: v if v in allowed else known.get(v.lower()) for v in values}
    return {v: m for v, m in meant.items() if m is not None}


def _unit(name: str, column: str) -> str:
    folded = _folded(column)
    if name == "weight_kg" and re.search(r"lbs?$", folded):
        return "lb"
    if name == "height_cm" and re.search(r"in$", folded):
        return "in"
    return ""


def _repeated(numbered: Mapping[str, list[str]]) -> list[str]:
    """Groups of numbered columns, by their count."""
    groups: dict[int, list[str]] = {}
    for name, columns in numbered.items():
        groups.setdefault(len(columns), []).append(name)
    lines = []
    for count, names in sorted(groups.items(), reverse=True):
        listed = ", ".join(
            f"{name} = {_quoted(re.sub(r'[0-9]+$', '{n}', numbered[name][0]))}" for name in names
        )
        lines += ["[[source.repeated]]", f"count = {count}", f"columns = {{ {listed} }}"]
    return lines


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
