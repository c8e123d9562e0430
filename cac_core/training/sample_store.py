"""Preparation of training samples from the rows of a training table, cached as files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cac_core.dicom.annotation import LabelMapping, combine, read_annotation, read_mapping
from cac_core.dicom.volume import read_volume
from cac_core.errors import StudyError, TrainingDataError
from cac_core.model.preprocess import Spacing
from cac_core.processes import worker_pool
from cac_core.progress import Progress
from cac_core.training.loop import use_threads
from cac_core.training.samples import Sample, SampleFiles, make_sample, save_sample
from cac_core.training.synthetic import generator_digest, is_made, make_annotated


@dataclass(frozen=True, slots=True)
class TrainingData:
    """A training table with what its rows refer to.

    Parameters
    ----------
    table : training table; its relative paths start at its folder.
    mapping : label mapping (TOML) of annotations.
    samples : folder of prepared samples; default: `samples` beside the table.
    real_chests : folder of the real chests, for implanted studies.
    """

    table: Path
    mapping: Path | None = None
    samples: Path | None = None
    real_chests: Path | None = None


@dataclass(frozen=True, slots=True)
class _Source:
    """Inputs of the preparation that are common to all rows."""

    base: Path
    mapping: LabelMapping | None
    real_chests: Path | None


def prepare_samples(
    rows: Sequence[dict[str, str]], data: TrainingData, progress: Progress
) -> SampleFiles:
    """Prepare the samples of rows of a training table; existing sample files are reused.

    Raises
    ------
    TrainingDataError
        At the first unusable row, with study and file.
    UsageError
        If an implanted study needs the real chests and they are missing.
    """
    folder = data.samples or data.table.parent / "samples"
    mapping = read_mapping(data.mapping) if data.mapping else None
    source = _Source(data.table.parent, mapping, data.real_chests)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{_sample_name(row, source)}.safetensors" for row in rows]
    missing = [n for n, path in enumerate(paths) if not path.exists()]
    if not missing:
        return SampleFiles(paths)
    progress.say(f"preparing {len(missing)} training samples in {folder}")
    with progress.counting("samples") as report, worker_pool(len(missing)) as pool:
        work = pool.map(
            _prepare_sample,
            [rows[n] for n in missing],
            [paths[n] for n in missing],
            [source] * len(missing),
        )
        for done, _ in enumerate(work, start=1):
            if report:
                report(done, len(missing))
    return SampleFiles(paths)


def _sample_name(row: dict[str, str], source: _Source) -> str:
    """A readable name with a digest of everything that the sample depends on."""
    parts = [row["study"], row["annotation"], row["reader"], *Sample.__dataclass_fields__]
    if is_made(row["study"]):
        parts.append(generator_digest(row["study"]))
    else:
        for path in [source.base / row["study"], *_annotation_paths(row, source.base)]:
            try:
                status = path.stat()
            except OSError as error:
                raise TrainingDataError(
                    f"Study {row['study']}: {path} cannot be read ({error.strerror}).",
                    "Correct the training table.",
                ) from None
            parts.append(f"{status.st_size}:{status.st_mtime_ns}")
        meaning = source.mapping.meaning if source.mapping else None
        parts.append(str(sorted(map(str, meaning.items()))) if meaning is not None else "")
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]
    readable = "".join(c if c.isalnum() else "-" for c in Path(row["study"]).name)
    return f"{readable}-{row['reader']}-{digest}"


def _annotation_paths(row: dict[str, str], base: Path) -> list[Path]:
    return [base / part.strip() for part in row["annotation"].split(";")]


def _prepare_sample(row: dict[str, str], path: Path, source: _Source) -> None:
    use_threads(1)
    try:
        save_sample(path, make_sample(*_annotated(row, source)))
    except (StudyError, ValueError) as error:
        raise TrainingDataError(
            f"Study {row['study']} cannot be used: {error}.",
            "Correct its files, or remove it from the training table.",
        ) from None
    except TrainingDataError as error:
        raise TrainingDataError(f"Study {row['study']}: {error.what}", error.hint) from None


def _annotated(
    row: dict[str, str], source: _Source
) -> tuple[NDArray[np.int16], NDArray[np.bool_], NDArray[np.uint8], Spacing]:
    """HU, heart mask, calcium class and spacing of an annotated study."""
    if is_made(row["study"]):
        scan, calcium = make_annotated(row["study"], row["annotation"], source.real_chests)
        return scan.hu, scan.heart_mask, calcium, scan.spacing_mm
    if source.mapping is None:
        raise TrainingDataError(
            f"{row['annotation']} needs a label mapping.", "Name one with --mapping labels.toml."
        )
    files = sorted((source.base / row["study"]).rglob("*"))
    volume = read_volume([path for path in files if path.is_file()])
    found = combine(
        [
            read_annotation(path, source.mapping, volume.affine, volume.hu.shape)
            for path in _annotation_paths(row, source.base)
        ]
    )
    if not found.heart.any():
        raise TrainingDataError(
            f"{row['annotation']} holds no heart.",
            "Add a file with the heart mask, separated by `;`, and map its label.",
        )
    return volume.hu, found.heart, found.calcium, volume.spacing_mm
