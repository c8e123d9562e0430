"""Prefect tasks over the archive: index it, choose the series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from cac_core.dicom.descriptions import TextPolicy
from cac_core.dicom.index import ArchiveIndex, index_archive
from cac_core.dicom.rules import SelectionRules
from cac_core.dicom.select import select_series
from cac_core.dicom.series import series_table
from cac_core.keys import Keyring
from tasks.step import step


@step("index-archive")
def index(
    roots: Sequence[Path],
    keyring: Keyring,
    previous: pa.Table,
    workers: int,
    texts: TextPolicy,
    progress: Callable[[int, int], None] | None,
) -> ArchiveIndex:
    """Read the headers of new and changed files."""
    return index_archive(
        roots, keyring, previous=previous, workers=workers, texts=texts, progress=progress
    )


@step("choose-series")
def choose_series(instances: pa.Table, rules: SelectionRules) -> pa.Table:
    """Choose the CTAC series of every study; every other series gets its reason."""
    return select_series(series_table(instances), rules)
