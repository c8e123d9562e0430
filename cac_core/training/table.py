"""The training table: reading, validation, splitting, and the digest of a split.

Validation and internal test hold a tenth of the studies each, with equal numbers per CAC category,
as in the paper; external sites form a separate test set. No patient is in two parts.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from cac_core.errors import TrainingDataError
from schemas.codes import CAC_CATEGORIES
from schemas.table import InvalidTableError
from schemas.training import SPLITS, TRAINING_SET

_HINT = "See docs/training.md for the columns."


def read_training_table(path: Path) -> pa.Table:
    """Read and validate a training table, CSV or Parquet; nullable columns may be absent.

    Raises
    ------
    TrainingDataError
        If it cannot be read, violates its schema, or has a patient or study in two parts.
    """
    try:
        if path.suffix == ".parquet":
            table = pq.ParquetFile(path).read()
        else:
            text = {name: pa.string() for name in TRAINING_SET.arrow_schema.names}
            options = pc.ConvertOptions(column_types=text, strings_can_be_null=True)
            table = pc.read_csv(path, convert_options=options)
        lacking = {"study", "annotation", "reader", "patient"} - set(table.column_names)
        if lacking and table.num_rows:
            raise TrainingDataError(
                f"The training table {path} has no column {', '.join(sorted(lacking))}.", _HINT
            )
        table = TRAINING_SET.from_rows(table.to_pylist())
    except (OSError, pa.ArrowInvalid) as error:
        raise TrainingDataError(
            f"The training table {path} cannot be read ({type(error).__name__}).", _HINT
        ) from None
    except InvalidTableError as error:
        raise TrainingDataError(f"The training table {path}: {error}.", _HINT) from None
    if not table.num_rows:
        raise TrainingDataError(f"The training table {path} holds no row.", _HINT)
    _check_parts(path, table)
    return table


def write_training_table(path: Path, table: pa.Table) -> None:
    """Write a training table as CSV, or as Parquet if the name ends in .parquet."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pq.write_table(table, path)
        else:
            pc.write_csv(table, path)
    except OSError as error:
        raise TrainingDataError(f"{path} cannot be written ({error.strerror}).") from None


def split_digest(table: pa.Table) -> str:
    """SHA-256 over study, reader, annotation and part of all rows, independent of their order."""
    rows = sorted(
        "\t".join(str(row[name]) for name in ("study", "reader", "annotation", "split"))
        for row in table.to_pylist()
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def rows_of(table: pa.Table, part: str, readers: Collection[str] = ()) -> list[dict[str, str]]:
    """Rows of one part of the split, sorted by study and reader; `readers` filters by reader."""
    rows = [
        row
        for row in table.to_pylist()
        if row["split"] == part and (not readers or row["reader"] in readers)
    ]
    return sorted(rows, key=lambda row: (row["study"], row["reader"]))


def split_table(
    table: pa.Table, *, seed: int, external_sites: Collection[str] = (), share: float = 0.1
) -> pa.Table:
    """Assign every study to a part of the split.

    Patients are sampled within the category of their first study, so that validation and internal
    test hold equal numbers of each category as far as the data allow.

    Raises
    ------
    TrainingDataError
        If a row has no category, an external site is unknown, or a category is too small.
    """
    rows = table.to_pylist()
    missing = [row["study"] for row in rows if row["cac_category"] is None]
    if missing:
        raise TrainingDataError(
            f"{len(missing)} rows have no cac_category, the first is study {missing[0]}.",
            "Fill the column with the category of the reader's score.",
        )
    unknown = set(external_sites) - {row["site"] for row in rows}
    if unknown:
        raise TrainingDataError(
            f"No study comes from {', '.join(sorted(unknown))}.", "Check the column `site`."
        )
    outside = {row["patient"] for row in rows if row["site"] in external_sites}
    part = dict.fromkeys(outside, "external_test")
    studies = len({row["study"] for row in rows if row["patient"] not in outside})
    wanted = max(1, round(share * studies / len(CAC_CATEGORIES)))
    by_category: dict[str, list[str]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["study"]):
        if row["patient"] not in part:
            part[row["patient"]] = "training"
            by_category[row["cac_category"]].append(row["patient"])
    rng = np.random.default_rng(seed)
    for category in CAC_CATEGORIES:
        _draw(part, by_category[category], wanted, category, rng)
    return TRAINING_SET.from_rows([row | {"split": part[row["patient"]]} for row in rows])


def _draw(
    part: dict[str, str],
    patients: Sequence[str],
    wanted: int,
    category: str,
    rng: np.random.Generator,
) -> None:
    if len(patients) <= 2 * wanted:
        raise TrainingDataError(
            f"Category {category} has {len(patients)} patients; validation and internal test need "
            f"{wanted} each, and training at least one.",
            "Add annotated studies of this category.",
        )
    order = rng.permutation(len(patients))
    for n in order[:wanted]:
        part[patients[n]] = "validation"
    for n in order[wanted : 2 * wanted]:
        part[patients[n]] = "internal_test"


def _check_parts(path: Path, table: pa.Table) -> None:
    """Check that no patient and no study is in two parts."""
    for column in ("patient", "study"):
        parts: dict[str, set[str]] = defaultdict(set)
        example = {}
        for row in table.to_pylist():
            if row["split"] is not None:
                parts[row[column]].add(row["split"])
                example[row[column]] = row["study"]
        for name, found in parts.items():
            if len(found) > 1:
                raise TrainingDataError(
                    f"The training table {path} has a {column} in two parts of the split "
                    f"({', '.join(p for p in SPLITS if p in found)}): study {example[name]}.",
                    "Put all studies of a patient into one part, or run `cac train split`.",
                )
