"""Canonical parts: the rows of one extract file, in Parquet files named after their digest."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cac_core.errors import CacError

if TYPE_CHECKING:  # every command opens a warehouse, few read extracts
    from cac_core.cohort.extracts import Extract


@dataclass(frozen=True, slots=True)
class Part:
    """Canonical rows of one extract file, and its rows in quarantine.

    `n_lines` counts the lines after the header (rows, for formats without lines), `n_unusable`
    the lines in quarantine, blank ones (`n_blank`) included. `faults` counts reasons by column (a
    row can have several); `cells` counts cells in quarantine whose row is used. `newest` is the
    last date of an encounter or death.
    """

    extract: Extract
    digest: str
    rows: Path
    quarantine: Path
    n_rows: int
    n_lines: int
    n_unusable: int
    n_blank: int
    faults: Mapping[tuple[str | None, str], int]
    cells: Mapping[tuple[str | None, str], int]
    newest: dt.date | None
    reused: bool


@dataclass(frozen=True, slots=True)
class PartStore:
    """Parts in `registry/` and `quarantine/` of a warehouse folder.

    New parts stay in `staging`, which has the same folders, until `publish`: a run that fails
    leaves the published tables unchanged.
    """

    root: Path
    staging: Path

    def find(self, table: str, digest: str) -> tuple[Path, Path] | None:
        """Files of a part, published or staged; None if it does not exist."""
        for folder in (self.root, self.staging):
            rows, bad = self._paths(folder, table, digest)
            if rows.exists() and bad.exists():
                return rows, bad
        return None

    def new(self, table: str, digest: str) -> tuple[Path, Path]:
        """Paths for the files of a new part."""
        return self._paths(self.staging, table, digest)

    def publish(self, parts: Sequence[Part]) -> None:
        """Publish these parts and remove all others.

        Raises
        ------
        CacError
            If the warehouse cannot be written.
        """
        keep = set()
        try:
            for part in parts:
                targets = self._paths(self.root, part.extract.source.table, part.digest)
                for path, target in zip((part.rows, part.quarantine), targets, strict=True):
                    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    path.replace(target)
                    keep.add(target)
            for pattern in ("registry/*/*.parquet", "quarantine/*-*.parquet"):
                for path in self.root.glob(pattern):
                    if path not in keep:
                        path.unlink()
            shutil.rmtree(self.staging, ignore_errors=True)
        except OSError as error:
            raise unwritable(self.root, error) from None

    def discard_staged(self, kept: Iterable[str]) -> None:
        """Remove staged parts of earlier runs, except those with these digests."""
        names = set(kept)
        for pattern in ("registry/*/*.parquet", "quarantine/*-*.parquet"):
            for path in self.staging.glob(pattern):
                if path.stem.split("-")[-1] not in names:
                    path.unlink(missing_ok=True)

    @staticmethod
    def _paths(folder: Path, table: str, digest: str) -> tuple[Path, Path]:
        rows = folder / "registry" / table / f"{digest}.parquet"
        return rows, folder / "quarantine" / f"{table}-{digest}.parquet"


def registry_folder(url: str, named: Path | None) -> Path:
    """Folder of this machine for the canonical tables of a warehouse at a URL.

    Parameters
    ----------
    named : folder of the settings; None for one below XDG_DATA_HOME, accessible to its owner only.
    """
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    if named is not None:
        return named / digest
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    data = data if data.is_absolute() else Path.home() / ".local" / "share"
    return data / "cac-cohort" / "registry" / digest


def unwritable(folder: Path, error: OSError) -> CacError:
    """The error of a warehouse folder that cannot be written."""
    return CacError(
        f"The warehouse {folder} cannot be written ({error.strerror}).",
        "Free space and permissions there.",
    )
