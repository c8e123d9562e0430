"""The synthetic archive of `cac phantom` and `cac demo`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq

from cac_core.errors import UsageError
from cac_core.phantom.archive.write import write_archive
from cac_core.phantom.registry.dialects import DIALECTS, write_extracts
from cac_core.phantom.registry.records import archive_visits, make_registry, truth_table
from flows.runtime.progress import RunProgress
from flows.runtime.results_folder import require_new
from flows.summaries import PhantomSummary, RegistrySummary

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
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(
            f"The folder {out} is not empty.", "Remove it, or name another with --out."
        )
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
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(
            f"The folder {out} is not empty.", "Remove it, or name another with --out."
        )
    if truth is not None and not truth.is_file():
        raise UsageError(f"There is no {truth}.", "`cac phantom` writes it beside the archive.")
    found = out.parent / f"{out.name}_truth.parquet"
    require_new(found)
    archive = [] if truth is None else archive_visits(pq.ParquetFile(truth).read())
    registry = make_registry(patients, seed, archive=archive)
    if dry_run:
        return RegistrySummary(str(out), str(out), str(found), len(registry.truth))
    mapping = write_extracts(registry, dialect, out, seed)
    pq.write_table(truth_table(registry), found)
    return RegistrySummary(str(out), str(mapping), str(found), len(registry.truth))
