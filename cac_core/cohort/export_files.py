"""File formats of exports: Parquet, CSV, Stata and SAS transport, with labels where they can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyreadstat

from cac_core.cohort.column_names import short_names
from cac_core.cohort.export_columns import column_label, value_labels, with_numbers
from cac_core.csv_text import write_csv
from cac_core.errors import CacError, UsageError

#: Longest names in Stata and version 8 of SAS transport, and in version 5.
_NAME_LENGTH, _XPORT_5 = 32, 8
#: Longest labels of columns.
_STATA_LABEL, _XPORT_LABEL, _XPORT_5_LABEL = 80, 256, 40
_ValueLabels = dict[str, dict[int | float, str]]
_Version = Literal[5, 8]


def write_tables(tables: Mapping[str, pa.Table], folder: Path, form: str) -> list[Path]:
    """Write tables into a folder in one of `FORMATS` and return the files, one per table.

    SAS transport cannot hold labels of values: a program `<name>.sas` beside each such file reads
    it and attaches them.

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


def _write_parquet(table: pa.Table, path: Path, name: str) -> None:
    pq.write_table(table, path, compression="zstd")


def _write_csv(table: pa.Table, path: Path, name: str) -> None:
    with path.open("wb") as stream:
        write_csv(table, stream)


def _write_stata(table: pa.Table, path: Path, name: str) -> None:
    table = with_numbers(table)
    names = short_names(table.column_names, _NAME_LENGTH)
    pyreadstat.write_dta(
        _frame(table, names),
        path,
        column_labels=_labels(table, _STATA_LABEL),
        variable_value_labels=_value_labels(table, names),
    )


def _write_xport(table: pa.Table, path: Path, name: str) -> None:
    table = with_numbers(table)
    version: _Version = 5 if max(map(len, table.column_names)) <= _XPORT_5 else 8
    _write_transport(table, path, name, version)


def _write_xport_5(table: pa.Table, path: Path, name: str) -> None:
    _write_transport(with_numbers(table), path, name, 5)


def _write_transport(table: pa.Table, path: Path, name: str, version: _Version) -> None:
    old = version == 5
    names = short_names(table.column_names, _XPORT_5 if old else _NAME_LENGTH)
    member = short_names([name], _XPORT_5)[0].upper() if old else name
    pyreadstat.write_xport(
        _frame(table, names),
        path,
        column_labels=_labels(table, _XPORT_5_LABEL if old else _XPORT_LABEL),
        table_name=member,
        file_format_version=version,
    )
    program = _sas_program(path.name, member, version, _value_labels(table, names))
    path.with_suffix(".sas").write_text(program, encoding="ascii", errors="replace")


def _frame(table: pa.Table, names: list[str]) -> pd.DataFrame:
    """A data frame under these names; whole numbers with gaps become floating-point."""
    frame: pd.DataFrame = table.to_pandas(date_as_object=True)
    for field in table.schema:
        if pa.types.is_integer(field.type) and table[field.name].null_count:
            frame[field.name] = frame[field.name].astype("float64")
    frame.columns = pd.Index(names)
    return frame


def _labels(table: pa.Table, length: int) -> list[str | None]:
    return [column_label(field)[:length] for field in table.schema]


def _value_labels(table: pa.Table, names: list[str]) -> _ValueLabels:
    found = {name: value_labels(field) for name, field in zip(names, table.schema, strict=True)}
    return {name: labels for name, labels in found.items() if labels}


def _sas_program(file: str, member: str, version: int, labels: _ValueLabels) -> str:
    """A SAS program that reads a transport file and attaches the labels of values."""
    kinds: dict[tuple[tuple[int | float, str], ...], list[str]] = {}
    for name, values in labels.items():
        kinds.setdefault(tuple(values.items()), []).append(name)
    lines = [f"/* Reads {file} and labels its coded values. Run it in the folder of the file. */"]
    if version == 5:
        lines += [f"libname source xport '{file}';", f"data {member}; set source.{member}; run;"]
    else:
        lines.append(f"%xpt2loc(libref=work, memlist={member}, filespec='{file}');")
    if kinds:
        # The name of a SAS format must not end with a digit.
        formats = {values: f"cac{number}f" for number, values in enumerate(kinds, start=1)}
        lines.append("proc format;")
        lines += [
            f"  value {formats[values]} " + " ".join(f"{n}='{text}'" for n, text in values) + ";"
            for values in kinds
        ]
        lines += ["run;", f"proc datasets library=work nolist; modify {member};"]
        lines += [
            f"  format {' '.join(names)} {formats[values]}.;" for values, names in kinds.items()
        ]
        lines += ["quit;"]
    return "\n".join(lines) + "\n"


#: Suffix and writer of each format.
FORMATS: Mapping[str, tuple[str, Callable[[pa.Table, Path, str], None]]] = {
    "parquet": (".parquet", _write_parquet),
    "csv": (".csv", _write_csv),
    "stata": (".dta", _write_stata),
    "xport": (".xpt", _write_xport),
    "xport5": (".xpt", _write_xport_5),
}
