"""The four frozen test sets, and their digests.

Their scans differ from the training scans: other acquisition, real anatomy, another generator. They
are excluded from training and calibration, as are other studies in a real chest on which weights
are evaluated. `frozen_sets.json` holds the SHA-256 of images and truth of each set, fixed before
the shipped weights were evaluated.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa

from cac_core.errors import UsageError
from cac_core.phantom.analytic.acquisition import draw_external_settings
from cac_core.phantom.analytic.scan import synthesise_scan
from cac_core.phantom.annotated import AnnotatedScan
from cac_core.phantom.heldout.implanted import variant_of
from cac_core.phantom.heldout.real_chests import host_names
from cac_core.phantom.heldout.second_generator import synthesise_second
from cac_core.phantom.meshes.scans import mesh_source, meshed_scan

FROZEN = Path(__file__).with_name("frozen_sets.json")
#: Number of studies and description by name.
TEST_SETS: dict[str, tuple[int, str]] = {
    "external": (300, "other people at 5 mm and 20 mA, by the training generator"),
    "semi-synthetic": (105, "calcium implanted in deformed real chests of seven people"),
    "cross-generator": (100, "people, plaques, blur and noise of a second generator"),
    "mesh-hearts": (108, "hearts from three anatomical meshes in real chests of six people"),
}
_EXTERNAL_SEED, _IMPLANT_SEED, _SECOND_SEED, _MESH_SEED = 500_000, 600_000, 700_000, 800_000
#: Meshes and chests of the set `mesh-hearts`. Two trainings, one with the female mesh and one with
#: the others, each without the chests of its pairs here, judge all of it.
_MESH_PAIRS = (
    *(
        (heart, host)
        for heart in ("male", "rodero")
        for host in ("siemens", "crop", "plain3", "motion")
    ),
    *(2 * [("female", host) for host in ("labelled", "plain8")]),
)


def make_case(name: str, number: int, data: Path | None) -> AnnotatedScan:
    """One study of a test set.

    Parameters
    ----------
    data : folder of the real chests and meshes, for `semi-synthetic` and `mesh-hearts`.

    Raises
    ------
    UsageError
        If the set is unknown, or the real chests or meshes are missing.
    """
    if name == "external":
        seed = _EXTERNAL_SEED + number
        return synthesise_scan(seed, draw_external_settings(np.random.default_rng(seed)))
    if name == "cross-generator":
        return synthesise_second(_SECOND_SEED + number)
    if name == "mesh-hearts":
        return meshed_scan(*_MESH_PAIRS[number % len(_MESH_PAIRS)], _MESH_SEED + number, data)
    if name != "semi-synthetic":
        raise UsageError(f"Unknown test set {name!r}.", f"Choose from {', '.join(TEST_SETS)}.")
    return variant_of(_host_of_case(number), _IMPLANT_SEED + number, data)


def anatomy_of_case(name: str, number: int) -> frozenset[str]:
    """The real chest and the mesh of a study: weights that learnt from these cannot judge it.

    Names are those of `WeightsManifest.hosts`.
    """
    if name == "semi-synthetic":
        return frozenset({_host_of_case(number)})
    if name == "mesh-hearts":
        heart, host = _MESH_PAIRS[number % len(_MESH_PAIRS)]
        return frozenset({mesh_source(heart), host})
    return frozenset()


def _host_of_case(number: int) -> str:
    hosts = host_names()
    return hosts[number % len(hosts)]


def kept_case(name: str, number: int, data: Path | None, folder: Path) -> AnnotatedScan:
    """The study of `make_case`, cached in a folder; generation takes seconds.

    Cached scans are not trusted: the digest of the set covers them.

    Raises
    ------
    UsageError
        As `make_case`, or if the folder cannot be written.
    """
    path = folder / f"{name}-{number}.npz.zst"
    try:
        if not path.exists():
            scan = make_case(name, number, data)
            folder.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(f".{os.getpid()}")
            content = io.BytesIO()
            np.savez(content, **{p.name: getattr(scan, p.name) for p in fields(AnnotatedScan)})
            with pa.output_stream(aside, compression="zstd") as stream:
                stream.write(content.getbuffer())
            aside.replace(path)
            return scan
        with pa.input_stream(path, compression="zstd") as stream:
            parts = dict(np.load(io.BytesIO(stream.read())))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read or written ({error}).", "Name another folder with --keep."
        ) from None
    step, row, column = (float(value) for value in parts.pop("spacing_mm"))
    return AnnotatedScan(spacing_mm=(step, row, column), name=str(parts.pop("name")), **parts)


def case_digest(scan: AnnotatedScan) -> str:
    """SHA-256 over the image and its truth."""
    digest = hashlib.sha256()
    for array in (scan.hu, scan.heart_mask, scan.calcium_site, np.array(scan.spacing_mm)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def set_digest(cases: Sequence[str]) -> str:
    """SHA-256 over the digests of all studies, in order."""
    return hashlib.sha256("\n".join(cases).encode()).hexdigest()


def frozen_digest(name: str) -> str | None:
    """The digest of the whole frozen set; None if it is not frozen."""
    digests: dict[str, str] = json.loads(FROZEN.read_text(encoding="utf-8"))
    return digests.get(name)
