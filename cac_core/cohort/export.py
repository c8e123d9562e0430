"""Export of the linked tables in standard shapes and file formats.

Shapes: `linked` and `events` unchanged, `adtte` (CDISC ADaM time to event), and `omop` (OMOP CDM
tables `person`, `measurement`, `observation_period`, `condition_occurrence`). Formats: Parquet,
CSV, Stata, SAS transport. Rows contain keys, never identifiers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyreadstat

from cac_core.cohort.database import sql_text
from cac_core.cohort.outcomes import OutcomeDefinition
from cac_core.csv_text import write_csv
from cac_core.errors import CacError, UsageError

SHAPES = ("linked", "events", "adtte", "omop")
_OMOP = ("person", "measurement", "observation_period", "condition_occurrence")
#: Longest names in Stata and version 8 of SAS transport, and in version 5.
_NAME_LENGTH, _XPORT_5 = 32, 8


def export_tables(
    linked: pa.Table, events: pa.Table, outcomes: OutcomeDefinition, shape: str, study: str
) -> dict[str, pa.Table]:
    """The tables of a shape by file name.

    Parameters
    ----------
    linked, events : the published tables of a linkage.
    outcomes : the definition that they were made with.
    study : identifier of the study, for ADTTE.

    Raises
    ------
    UsageError
        If there is no such shape.
    """
    if shape not in SHAPES:
        raise UsageError(f"There is no shape {shape!r}.", f"There are: {', '.join(SHAPES)}.")
    if shape in ("linked", "events"):
        return {shape: linked if shape == "linked" else events}
    with duckdb.connect(":memory:") as connection:
        for name, table in (("linked", linked), ("events", events)):
            connection.register(name, table)
        if shape == "adtte":
            return {"adtte": _adtte(connection, outcomes, study)}
        concepts = {
            name: item.omop_concept_id
            for name, item in outcomes.component.items()
            if item.kind == "diagnosis"
        }
        connection.register(
            "concepts",
            pa.table({"component": list(concepts), "concept_id": list(concepts.values())}),
        )
        connection.execute(sql_text("export_omop"))
        return {name: connection.table(f"omop_{name}").to_arrow_table() for name in _OMOP}


def write_tables(tables: Mapping[str, pa.Table], folder: Path, form: str) -> list[Path]:
    """Write tables into a folder in one of `FORMATS` and return the files.

    Raises
    ------
    UsageError
        If there is no such format.
    CacError
        If the folder cannot be written.
    """
    if form not in FORMATS:
        raise UsageError(f"There is no format {form!r}.", f"There are: {', '.join(FORMATS)}.")
    suffix, write = FORMATS[form]
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            path = folder / f"{name}{suffix}"
            write(table, path, name)
            paths.append(path)
    except (OSError, pyreadstat.PyreadstatError) as error:
        raise CacError(
            f"{folder} cannot be written ({type(error).__name__}).", "Name another with --out."
        ) from None
    return paths


def short_names(names: Sequence[str], length: int) -> list[str]:
    """Distinct names of at most `length` characters; the same input gives the same names."""
    short: list[str] = []
    for name in names:
        cut, number = name[:length], 1
        while cut.lower() in {other.lower() for other in short}:
            number += 1
            cut = f"{name[: length - len(str(number))]}{number}"
        short.append(cut)
    return short


def _adtte(
    connection: duckdb.DuckDBPyConnection, outcomes: OutcomeDefinition, study: str
) -> pa.Table:
    names = list(outcomes.outcome)
    codes = short_names([re.sub(r"[^A-Z0-9]", "", name.upper()) for name in names], _XPORT_5)
    described = [outcomes.outcome[name].description or name for name in names]
    connection.register(
        "parameters", pa.table({"outcome": names, "code": codes, "description": described})
    )
    rows = " UNION ALL ".join(
        f"SELECT patient_key, study_date, '{name}' AS outcome, {name}_event AS event, "
        f"{name}_days AS days FROM linked"
        for name in names
    )
    text = sql_text("export_adtte").replace("{rows}", rows)
    return connection.sql(text, params={"study": study}).to_arrow_table()


def _write_parquet(table: pa.Table, path: Path, name: str) -> None:
    pq.write_table(table, path, compression="zstd")


def _write_csv(table: pa.Table, path: Path, name: str) -> None:
    with path.open("wb") as stream:
        write_csv(table, stream)


def _write_stata(table: pa.Table, path: Path, name: str) -> None:
    frame, labels = _frame(table, _NAME_LENGTH, label_length=80)
    pyreadstat.write_dta(frame, path, column_labels=labels)


def _write_xport(table: pa.Table, path: Path, name: str) -> None:
    old = max(map(len, table.column_names)) <= _XPORT_5
    frame, labels = _frame(table, _XPORT_5 if old else _NAME_LENGTH, 40 if old else 256)
    pyreadstat.write_xport(
        frame,
        path,
        column_labels=labels,
        table_name=name.upper()[:_XPORT_5] if old else name,
        file_format_version=5 if old else 8,
    )


def _frame(
    table: pa.Table, name_length: int, label_length: int
) -> tuple[pd.DataFrame, list[str | None]]:
    """Columns under names that the format allows, with labels of name, meaning and unit."""
    frame = table.to_pandas(date_as_object=True)
    for field in table.schema:
        if pa.types.is_integer(field.type) and table[field.name].null_count:
            frame[field.name] = frame[field.name].astype("float64")
    frame.columns = pd.Index(short_names(table.column_names, name_length))
    return frame, [_label(field)[:label_length] for field in table.schema]


def _label(field: pa.Field) -> str:
    metadata = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
    unit = f" [{metadata['unit']}]" if metadata.get("unit") else ""
    return (
        f"{field.name}: {metadata['description']}{unit}"
        if "description" in metadata
        else field.name
    )


#: Suffix and writer of each format.
FORMATS: Mapping[str, tuple[str, Callable[[pa.Table, Path, str], None]]] = {
    "parquet": (".parquet", _write_parquet),
    "csv": (".csv", _write_csv),
    "stata": (".dta", _write_stata),
    "xport": (".xpt", _write_xport),
}
