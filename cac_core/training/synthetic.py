"""Scans that are made to be learnt from, by the names that a training table gives them.

`synthetic:SEED` is a person of the generator, `implanted:HOST:SEED` calcium implanted in a deformed
real chest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cac_core import phantom
from cac_core.errors import TrainingDataError
from cac_core.phantom.analytic.scan import draw_external_settings, synthesise_scan
from cac_core.phantom.annotated import CLASS_OF_SITE, AnnotatedScan
from cac_core.phantom.heldout.frozen_sets import variant_of
from cac_core.phantom.reader import annotate
from cac_core.phantom.truth import true_agatston, true_category
from cac_core.processes import worker_pool
from cac_core.progress import Progress
from schemas.training import TRAINING_SET

SYNTHETIC = "synthetic:"
IMPLANTED = "implanted:"
#: A study whose name ends so is scanned as at the paper's external site: 5 mm, 20 mA.
LOW_DOSE = ":low-dose"
#: A study whose name ends so has many plaques, and calcium has no shape of its own.
TEACHING = ":teaching"
_SYNTHETIC_NAME = re.compile(rf"{SYNTHETIC}(?P<seed>\d+)({TEACHING})?({LOW_DOSE})?")
_IMPLANTED_NAME = re.compile(rf"{IMPLANTED}(?P<host>[^:]+):(?P<seed>\d+)")


def is_made(study: str) -> bool:
    """Whether a study of a training table is made, rather than read."""
    return study.startswith((SYNTHETIC, IMPLANTED))


def host_of(study: str) -> str | None:
    """The real chest that a study was made from, if it was."""
    named = _IMPLANTED_NAME.fullmatch(study)
    return named and named["host"]


def synthetic_names(
    studies: int, seed: int, *, low_dose: bool = False, teaching: bool = False
) -> list[str]:
    """Names of as many synthetic studies.

    Parameters
    ----------
    low_dose : all of them at 5 mm and 20 mA, where noise is mistaken most easily for calcium.
    teaching : many plaques of every artery and calcium without a shape of its own, see
        `synthesise_scan`; categories are then not those of people.
    """
    end = (TEACHING if teaching else "") + (LOW_DOSE if low_dose else "")
    return [f"{SYNTHETIC}{number}{end}" for number in range(seed, seed + studies)]


def implanted_names(studies: int, seed: int, hosts: Sequence[str]) -> list[str]:
    """Names of as many studies implanted in each of these real chests."""
    return [f"{IMPLANTED}{host}:{n}" for host in hosts for n in range(seed, seed + studies)]


def made_table(
    names: Sequence[str], annotation: str, data: Path | None, progress: Progress
) -> pa.Table:
    """A training table of studies to be made, without a split; categories from their scans.

    All studies implanted in one chest are one patient's, and the chest is their site: it can be
    left out as a whole.
    """
    n = len(names)
    with progress.counting("scans") as report, worker_pool(n) as pool:
        rows = []
        for row in pool.map(_row, names, [annotation] * n, [data] * n):
            rows.append(row)
            if report:
                report(len(rows), n)
    return TRAINING_SET.from_rows(rows)


def make_annotated(
    study: str, annotation: str, data: Path | None
) -> tuple[AnnotatedScan, NDArray[np.uint8]]:
    """Make a study of a training table; with its calcium by class as annotated.

    Parameters
    ----------
    annotation : `truth`, or `reader` for a simulated reader.
    data : folder of the real chests; implanted studies need it.

    Raises
    ------
    TrainingDataError
        If there is no such study, or no such annotation of it.
    UsageError
        If the real chests are not there.
    """
    seed = _seed(study)
    host = host_of(study)
    if host is not None:
        scan = variant_of(host, seed, data)
    else:
        low_dose = study.endswith(LOW_DOSE)
        settings = draw_external_settings(np.random.default_rng(seed)) if low_dose else None
        # What is rare in people is met often enough to be learnt.
        scan = synthesise_scan(seed, settings, rare_times=3.0, teaching=TEACHING in study)
    if annotation == "truth":
        return scan, scan.calcium_class
    if annotation == "reader":
        return scan, CLASS_OF_SITE[annotate(scan, seed)]
    raise TrainingDataError(
        f"A study that is made has no annotation {annotation!r}.", "It is `truth` or `reader`."
    )


@lru_cache(maxsize=1)
def generator_digest() -> str:
    """Digest of the code that makes scans: other code makes another scan of a seed."""
    files = sorted(Path(phantom.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _seed(study: str) -> int:
    named = _SYNTHETIC_NAME.fullmatch(study) or _IMPLANTED_NAME.fullmatch(study)
    if named is None:
        raise TrainingDataError(
            f"There is no study {study!r} to be made.",
            f"Names are {SYNTHETIC}SEED, with {TEACHING}, {LOW_DOSE} or both in this order, and "
            f"{IMPLANTED}HOST:SEED.",
        )
    return int(named["seed"])


def _row(study: str, annotation: str, data: Path | None) -> dict[str, object]:
    scan, calcium = make_annotated(study, annotation, data)
    host = host_of(study)
    return {
        "study": study,
        "annotation": annotation,
        "reader": annotation,
        "patient": host or f"P{_seed(study)}",
        "site": host or "synthetic",
        "cac_category": true_category(
            true_agatston(scan.hu, (calcium == 1) & scan.heart_mask, scan.spacing_mm)
        ),
        "split": None,
    }
