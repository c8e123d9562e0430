"""The synthetic archives and registries of `cac phantom`, `cac registry` and `cac demo`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq

from cac_core.cohort.fingerprint import keep_fingerprint
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import UsageError
from cac_core.keys import load_keyring
from cac_core.phantom.archive.write import write_archive
from cac_core.phantom.registry.dialects import DIALECTS, write_extracts
from cac_core.phantom.registry.patients import PAPER_N
from cac_core.phantom.registry.records import (
    Registry,
    archive_visits,
    make_registry,
    truth_table,
)
from cac_core.phantom.registry.scored_archive import SYNTHETIC_MODEL, scored_archive
from flows.runtime.progress import RunProgress
from flows.runtime.results_folder import require_new
from flows.summaries import PhantomSummary, RegistrySummary, ScoredRegistrySummary
from schemas.instance import INSTANCES
from schemas.lesion import LESIONS
from schemas.score import SCORES
from schemas.series import SERIES

#: Patients of the paper's external cohort, to which the full demo draws.
FULL_PATIENTS = PAPER_N
#: Secret of the demo: its patients are invented, and its keys are the same on every machine.
DEMO_SECRET = "public secret of the cac demo, never for real patients"
_BYTES_PER_STUDY = 60 * 2**20


def make_phantom(
    out: Path, studies: int, seed: int, progress: RunProgress, *, dry_run: bool = False
) -> PhantomSummary:
    """Write a synthetic archive into `out`, and its truth beside it, unless it is a dry run.

    Raises
    ------
    UsageError
        If `out` is not empty, its truth exists already, or disk space is insufficient.
    """
    _require_empty(out)
    parent = next(folder for folder in (out, *out.resolve().parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < studies * _BYTES_PER_STUDY:
        raise UsageError(
            f"{studies} studies need about {studies * _BYTES_PER_STUDY / 2**30:.1f} GiB; "
            f"{parent} has {free / 2**30:.1f} GiB free.",
            "Name a folder on another disk, or lower --studies.",
        )
    truth = out.parent / "truth.parquet"
    require_new(truth)
    if dry_run:
        return PhantomSummary(str(out), str(truth), studies, seed)
    progress.say(f"writing {studies} synthetic SPECT/CT studies to {out}")
    with progress.counting("studies written") as report:
        write_archive(
            out,
            studies=studies,
            seed=seed,
            truth_path=truth,
            workers=len(os.sched_getaffinity(0)),
            progress=report,
        )
    return PhantomSummary(str(out), str(truth), studies, seed)


def make_extracts(
    out: Path, patients: int, truth: Path | None, dialect: str, seed: int, *, dry_run: bool = False
) -> RegistrySummary:
    """Write extracts and mapping of a synthetic registry into `out`, and the truth beside it.

    A dry run checks and writes nothing.

    Parameters
    ----------
    patients : number of invented patients; ignored with `truth`.
    truth : truth table of a synthetic archive, to take the patients from.
    dialect : format of the extracts, one of `DIALECTS`.

    Raises
    ------
    UsageError
        If `out` is not empty, its truth exists already, or dialect or `truth` are unknown.
    """
    if dialect not in DIALECTS:
        raise UsageError(
            f"Unknown dialect {dialect!r}.", f"Choose from {', '.join(sorted(DIALECTS))}."
        )
    _require_empty(out)
    if truth is not None and not truth.is_file():
        raise UsageError(f"There is no {truth}.", "`cac phantom` writes it beside the archive.")
    archive = [] if truth is None else archive_visits(pq.ParquetFile(truth).read())
    registry = make_registry(patients, seed, archive=archive)
    return _write_registry(registry, dialect, out, seed, dry_run=dry_run)


def make_scored_registry(
    out: Path, patients: int, seed: int, progress: RunProgress
) -> ScoredRegistrySummary:
    """Write a registry of invented patients and a warehouse with their scores, but no scan.

    Parameters
    ----------
    out : new or empty folder; gets `registry`, its truth, and `warehouse`.
    patients : patients of the later analysis; further ones leave the cohort at each step.

    Raises
    ------
    UsageError
        If `out` is not empty.
    CacError
        If there is no usable secret, or the folder cannot be written.
    """
    _require_empty(out)
    keyring, store = load_keyring(), Warehouse(out / "warehouse")
    progress.say(f"inventing {patients} patients with scores; no scan is made")
    registry = make_registry(patients, seed)
    archive = scored_archive(registry, keyring, seed)
    with store.lock():
        keep_fingerprint(store, keyring)
        store.replace(INSTANCES, archive.instances)
        store.replace(SERIES, archive.series)
        store.replace(LESIONS, archive.lesions, SYNTHETIC_MODEL)
        store.replace(SCORES, archive.scores, SYNTHETIC_MODEL)
    extracts = _write_registry(registry, "abstracts", out / "registry", seed)
    return ScoredRegistrySummary(
        store.url, SYNTHETIC_MODEL, archive.scores.num_rows, seed, registry=extracts
    )


def _write_registry(
    registry: Registry, dialect: str, out: Path, seed: int, *, dry_run: bool = False
) -> RegistrySummary:
    """Write extracts and mapping into a folder, and the truth beside it; a dry run only checks."""
    found = out.parent / f"{out.name}_truth.parquet"
    require_new(found)
    if dry_run:
        return RegistrySummary(str(out), str(out), str(found), len(registry.truth))
    mapping = write_extracts(registry, dialect, out, seed)
    pq.write_table(truth_table(registry), found)
    return RegistrySummary(str(out), str(mapping), str(found), len(registry.truth))


def _require_empty(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(
            f"The folder {out} is not empty.", "Remove it, or name another with --out."
        )
