"""The synthetic archive of `cac phantom` and `cac demo`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from cac_core.errors import UsageError
from cac_core.phantom.archive import write_archive
from flows.progress import RunProgress

#: Secret of the demo alone: its patients do not exist, and its keys are to be the same everywhere.
DEMO_SECRET = "public secret of the cac demo, never for real patients"
_BYTES_PER_STUDY = 60 * 2**20


def make_phantom(out: Path, studies: int, seed: int, progress: RunProgress) -> dict[str, Any]:
    """Write the archive into `out` and its truth beside it.

    Raises
    ------
    UsageError
        If `out` is not empty, or the disk has too little room.
    """
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(
            f"The folder {out} is not empty.", "Remove it, or name another with --out."
        )
    parent = next(folder for folder in (out, *out.resolve().parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < studies * _BYTES_PER_STUDY:
        raise UsageError(
            f"{studies} studies need about {studies * _BYTES_PER_STUDY / 2**30:.1f} GiB, "
            f"and {free / 2**30:.1f} GiB are free at {parent}.",
            "Name another disk, or ask for fewer with --studies.",
        )
    truth = out.parent / "truth.parquet"
    progress.say(f"making {studies} synthetic SPECT/CT studies in {out}")
    with progress.counting("studies made") as report:
        write_archive(
            out,
            studies=studies,
            seed=seed,
            truth_path=truth,
            workers=len(os.sched_getaffinity(0)),
            progress=report,
        )
    return {"archive": str(out), "truth": str(truth), "studies": studies, "seed": seed}
