"""Synthetic and implanted studies by the names that a training table gives them.

`synthetic:SEED` is a scan of the analytic generator, `implanted:HOST:SEED` synthetic calcium
implanted in a deformed real chest, `meshed:HEART:HOST:SEED` the same with the heart of the chest
replaced by one from an anatomical mesh.
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
from cac_core.phantom.analytic.acquisition import draw_external_settings
from cac_core.phantom.analytic.scan import synthesise_scan
from cac_core.phantom.annotated import CLASS_OF_SITE, AnnotatedScan
from cac_core.phantom.heldout.implanted import variant_of
from cac_core.phantom.meshes.scans import mesh_source, meshed_scan
from cac_core.phantom.reader import annotate
from cac_core.phantom.truth import true_agatston, true_category
from cac_core.processes import worker_pool
from cac_core.progress import Progress
from schemas.training import TRAINING_SET

SYNTHETIC = "synthetic:"
IMPLANTED = "implanted:"
MESHED = "meshed:"
#: Suffix of studies with the acquisition of the paper's external site: 5 mm, 20 mA.
LOW_DOSE = ":low-dose"
#: Suffix of balanced studies, see `synthesise_scan`; existing tables and split digests contain it.
BALANCED = ":teaching"
_SYNTHETIC_NAME = re.compile(rf"{SYNTHETIC}(?P<seed>\d+)({BALANCED})?({LOW_DOSE})?")
_IMPLANTED_NAME = re.compile(
    rf"({IMPLANTED}|{MESHED}(?P<heart>[^:]+):)(?P<host>[^:]+):(?P<seed>\d+)"
)


#: Those of all studies in real chests.
_CHEST_FILES = (
    "analytic/noise.py",
    "annotated.py",
    "heldout/acquire.py",
    "heldout/artefacts.py",
    "heldout/calcium_clouds.py",
    "heldout/devices.py",
    "heldout/hosts.toml",
    "heldout/implanted.py",
    "heldout/look.py",
    "heldout/placement.py",
    "heldout/real_chests.py",
    "heldout/scene.py",
    "heldout/ungated.py",
    "reader.py",
    "truth.py",
)
#: Files of `cac_core.phantom` that determine the scans and annotations of a study, by the prefix of
#: its name. A test compares the list with the imports.
GENERATOR_FILES: dict[str, tuple[str, ...]] = {
    SYNTHETIC: (
        "analytic/acquisition.py",
        "analytic/anatomy.py",
        "analytic/blobs.py",
        "analytic/calcium.py",
        "analytic/coronaries.py",
        "analytic/noise.py",
        "analytic/noncoronary.py",
        "analytic/plaques.py",
        "analytic/scan.py",
        "analytic/shapes.py",
        "analytic/tissue.py",
        "analytic/warp.py",
        "annotated.py",
        "reader.py",
        "truth.py",
    ),
    IMPLANTED: _CHEST_FILES,
    MESHED: tuple(
        sorted(
            (
                *_CHEST_FILES,
                "meshes/insertion.py",
                "meshes/reference.py",
                "meshes/scans.py",
                "meshes/surfaces.py",
            )
        )
    ),
}


def is_made(study: str) -> bool:
    """Whether a study of a training table is generated rather than read from files."""
    return study.startswith((SYNTHETIC, IMPLANTED, MESHED))


def anatomy_of(study: str) -> frozenset[str]:
    """The real chest and the mesh (`mesh-NAME`) that a study was made from; empty for others."""
    named = _IMPLANTED_NAME.fullmatch(study)
    if named is None:
        return frozenset()
    heart = named["heart"]
    return frozenset({named["host"], *([mesh_source(heart)] if heart else [])})


def hosts_of(rows: Sequence[dict[str, str]]) -> list[str]:
    """The real chests and meshes of the studies in rows of a training table."""
    return sorted(frozenset().union(*(anatomy_of(row["study"]) for row in rows)))


def synthetic_names(
    studies: int, seed: int, *, low_dose: bool = False, balanced: bool = False
) -> list[str]:
    """Names of synthetic studies with consecutive seeds.

    Parameters
    ----------
    low_dose : slices of 5 mm at 20 mA, where noise resembles calcium most.
    balanced : many plaques, in all arteries equally, see `synthesise_scan`; the CAC categories do
        not follow their distribution in patients.
    """
    end = (BALANCED if balanced else "") + (LOW_DOSE if low_dose else "")
    return [f"{SYNTHETIC}{number}{end}" for number in range(seed, seed + studies)]


def implanted_names(
    studies: int, seed: int, hosts: Sequence[str], hearts: Sequence[str] = ()
) -> list[str]:
    """Names of `studies` implanted studies for each of these real chests.

    Parameters
    ----------
    hearts : meshes; with any, `studies` for each pair of a mesh and a chest.
    """
    prefixes = [f"{MESHED}{heart}:" for heart in hearts] or [IMPLANTED]
    return [
        f"{prefix}{host}:{n}"
        for prefix in prefixes
        for host in hosts
        for n in range(seed, seed + studies)
    ]


def made_table(
    names: Sequence[str], annotation: str, data: Path | None, progress: Progress
) -> pa.Table:
    """A training table of generated studies, without a split.

    The CAC categories are those of the generated scans. All studies implanted in one chest belong
    to one patient, and the chest is their site, so that it can be held out as a whole.
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
    """Generate a study of a training table; returns the scan and its annotated calcium class.

    Parameters
    ----------
    annotation : `truth`, or `reader` for a simulated reader.
    data : folder of the real chests, for implanted studies.

    Raises
    ------
    TrainingDataError
        If the name of the study or the annotation is unknown.
    UsageError
        If the real chests are missing.
    """
    seed = _seed(study)
    named = _IMPLANTED_NAME.fullmatch(study)
    if named is not None and named["heart"]:
        scan = meshed_scan(named["heart"], named["host"], seed, data, varied=True)
    elif named is not None:
        scan = variant_of(named["host"], seed, data, varied=True)
    else:
        low_dose = study.endswith(LOW_DOSE)
        settings = draw_external_settings(np.random.default_rng(seed)) if low_dose else None
        # Rare structures are generated more often, so that the networks see enough of them.
        scan = synthesise_scan(seed, settings, rare_times=3.0, balanced=BALANCED in study)
    if annotation == "truth":
        return scan, scan.calcium_class
    if annotation == "reader":
        return scan, CLASS_OF_SITE[annotate(scan, seed)]
    raise TrainingDataError(
        f"Generated studies have no annotation {annotation!r}.", "Use `truth` or `reader`."
    )


def generator_digest(study: str) -> str:
    """SHA-256 of the code that generates such studies: changed code changes the scan of a seed."""
    return _files_digest(study.partition(":")[0] + ":")


@lru_cache(maxsize=3)
def _files_digest(prefix: str) -> str:
    folder = Path(phantom.__file__).parent
    digest = hashlib.sha256()
    for name in GENERATOR_FILES[prefix]:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def _seed(study: str) -> int:
    named = _SYNTHETIC_NAME.fullmatch(study) or _IMPLANTED_NAME.fullmatch(study)
    if named is None:
        raise TrainingDataError(
            f"The study name {study!r} is malformed.",
            f"Names are {SYNTHETIC}SEED, with {BALANCED}, {LOW_DOSE} or both in this order, "
            f"{IMPLANTED}HOST:SEED and {MESHED}HEART:HOST:SEED.",
        )
    return int(named["seed"])


def _row(study: str, annotation: str, data: Path | None) -> dict[str, object]:
    scan, calcium = make_annotated(study, annotation, data)
    named = _IMPLANTED_NAME.fullmatch(study)
    host, heart = (named["host"], named["heart"]) if named else (None, None)
    return {
        "study": study,
        "annotation": annotation,
        "reader": annotation,
        "patient": mesh_source(heart) if heart else host or f"P{_seed(study)}",
        "site": host or "synthetic",
        "cac_category": true_category(
            true_agatston(scan.hu, (calcium == 1) & scan.heart_mask, scan.spacing_mm)
        ),
        "split": None,
    }
