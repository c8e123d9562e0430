"""Sources of scores, paired by study: model, readers, visual grades, truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from cac_core.cohort.fingerprint import require_same_secret
from cac_core.cohort.scores import scores_of
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError, UsageError
from cac_core.keys import Keyring, load_keyring
from cac_core.storage import is_url, require_answer
from schemas.registry import READINGS
from schemas.table import InvalidTableError

KINDS = ("model", "reader", "visual", "truth")
_HOW = "A source is `model` or `model:ID`, `reader:NAME`, `visual:NAME`, or `truth`."


@dataclass(frozen=True, slots=True)
class Source:
    """A source of scores; `name` identifies a model or reader, empty if there is only one."""

    kind: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read `kind` or `kind:name`.

        Raises
        ------
        UsageError
            If the kind is unknown.
        """
        kind, _, name = text.strip().partition(":")
        if kind not in KINDS:
            raise UsageError(f"Unknown source of scores: {text!r}.", _HOW)
        return cls(kind, name.strip())

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


@dataclass(frozen=True)
class Pairs:
    """Studies with scores from both sources.

    `rows` hold the columns of `scores` with `first` and `second`: Agatston scores or visual grades.
    `only_first` and `only_second` count the studies of one source only. `reasons` are the rejection
    reasons by study key, `planted` the defects planted in a synthetic archive.
    """

    first: Source
    second: Source
    rows: list[dict[str, Any]]
    only_first: int
    only_second: int
    reasons: Mapping[str, str | None]
    planted: Mapping[str, str]


def pair_sources(
    warehouse: str,
    first: Source,
    second: Source,
    readings: Path | None = None,
    truth: Path | None = None,
) -> Pairs:
    """Match two sources by `study_key`, or by `patient_key` and study date for readings.

    Parameters
    ----------
    readings : table `readings` with the registry's patient identifiers, CSV or Parquet; the
        identifiers are replaced by keys on reading.
    truth : `truth.parquet` of a synthetic archive.

    Raises
    ------
    CacError
        If a file cannot be read, or no study has both scores.
    UsageError
        If a source is missing or ambiguous, or the secret is not that of the warehouse.
    """
    if is_url(warehouse):
        require_answer(warehouse, "warehouse")
    store = Warehouse(warehouse)
    scores = _scores(store, first if first.kind == "model" else second)
    by_key = {str(row["study_key"]): row for row in scores if row["status"] == "scored"}
    planted: dict[str, str] = {}
    values = []
    for source in (first, second):
        if source.kind == "model":
            rows = by_key if source.name == "" else _scored(store, source)
            values.append({key: row["agatston"] for key, row in rows.items()})
        elif source.kind == "truth":
            values.append(_truth(_need(truth, source, "--truth"), _keyring(store), planted))
        else:
            path = _need(readings, source, "--readings")
            values.append(_readings(path, source, by_key, _keyring(store)))
    both = sorted(set(values[0]) & set(values[1]) & set(by_key))
    if not both:
        raise CacError(
            f"No scored study of {warehouse} has a score of {first} and of {second}.",
            "Check that the files belong to this archive and were keyed with the same secret.",
        )
    return Pairs(
        first,
        second,
        [by_key[key] | {"first": values[0][key], "second": values[1][key]} for key in both],
        len(set(values[0]) - set(values[1])),
        len(set(values[1]) - set(values[0])),
        {str(row["study_key"]): row["reason"] for row in scores},
        planted,
    )


def _keyring(store: Warehouse) -> Keyring:
    """The secret, which must be the one of the warehouse."""
    keyring = load_keyring()
    require_same_secret(store, keyring)
    return keyring


def _scores(store: Warehouse, source: Source) -> list[dict[str, Any]]:
    """All score rows of the named model, or of the only one."""
    models = store.models()
    if not models:
        raise CacError(f"{store.url} holds no scores.", "Score an archive first: `cac score`.")
    wanted = source.name if source.kind == "model" else ""
    if wanted and wanted not in models:
        raise UsageError(f"There are no scores of {wanted!r}.", f"There are: {', '.join(models)}.")
    if not wanted and len(models) > 1:
        raise UsageError(
            f"{store.url} holds scores of {len(models)} models.",
            f"Name one as `model:ID`: {', '.join(models)}.",
        )
    rows: list[dict[str, Any]] = scores_of(store, wanted or models[0]).to_pylist()
    return rows


def _scored(store: Warehouse, source: Source) -> dict[str, dict[str, Any]]:
    rows = _scores(store, source)
    return {str(row["study_key"]): row for row in rows if row["status"] == "scored"}


def _need(path: Path | None, source: Source, option: str) -> Path:
    if path is None:
        raise UsageError(f"The source {source} needs a file.", f"Name it with {option}.")
    return path


def _truth(path: Path, keyring: Keyring, planted: dict[str, str]) -> dict[str, float]:
    rows = _table(
        path, _read_parquet, "It is written beside a synthetic archive by `cac phantom`."
    ).to_pylist()
    found = {}
    for row in rows:
        key = keyring.study_key(row["study_instance_uid"])
        found[key] = row["agatston"]
        if row["planted_defect"]:
            planted[key] = row["planted_defect"]
    return found


def _readings(
    path: Path, source: Source, studies: Mapping[str, Mapping[str, Any]], keyring: Keyring
) -> dict[str, Any]:
    """Readings of a reader by study key, for scored studies."""
    hint = "It needs the columns of the table `readings`: see `cac schema`."
    table = _table(path, _read_parquet if path.suffix == ".parquet" else _read_csv, hint)
    missing = {"patient_id", "study_date", "reader", "method"} - set(table.column_names)
    if missing:
        raise CacError(f"{path} lacks the columns {', '.join(sorted(missing))}.", hint)
    known = [c.name for c in READINGS.columns if c.name in table.column_names]
    try:
        rows = READINGS.from_rows(table.select(known).to_pylist()).to_pylist()
    except InvalidTableError as error:
        raise CacError(f"{path} cannot be used: {error}.", hint) from None
    method, column = (
        ("visual", "visual_grade") if source.kind == "visual" else ("expert", "agatston")
    )
    rows = [row for row in rows if row["method"] == method]
    _require_reader(path, source, method, sorted({row["reader"] for row in rows}))
    by_patient = {
        (keyring.patient_key(row["patient_id"]), row["study_date"]): row[column]
        for row in rows
        if row[column] is not None and source.name in ("", row["reader"])
    }
    found = {}
    for key, study in studies.items():
        value = by_patient.get((study["patient_key"], study["study_date"]))
        if value is not None:
            found[key] = value
    return found


def _require_reader(path: Path, source: Source, method: str, readers: list[str]) -> None:
    """Check that the source names one of the readers, or that there is only one."""
    if source.name and source.name not in readers:
        raise UsageError(
            f"{path} holds no {method} reading of {source.name!r}.",
            f"There are: {', '.join(readers) or 'none'}.",
        )
    if not source.name and len(readers) > 1:
        raise UsageError(
            f"{path} holds {method} readings of {len(readers)} readers.",
            f"Name one as `{source.kind}:NAME`: {', '.join(readers)}.",
        )


def _read_parquet(path: Path) -> pa.Table:
    # One file: folder names must not become partition columns.
    with path.open("rb") as stream:
        return pq.ParquetFile(stream).read()


def _read_csv(path: Path) -> pa.Table:
    # Typed by the schema of the table: identifiers keep their leading zeros.
    types = {column.name: column.type for column in READINGS.columns}
    return pc.read_csv(
        path, convert_options=pc.ConvertOptions(column_types=types, strings_can_be_null=True)
    )


def _table(path: Path, read: Callable[[Path], pa.Table], hint: str) -> pa.Table:
    try:
        return read(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise CacError(f"{path} cannot be read ({type(error).__name__}).", hint) from None
