"""Annotations of readers, as DICOM SEG or NIfTI label maps, on the grid of their scan."""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from cac_core.errors import TrainingDataError

#: Text labels are case-insensitive; numbers are values of a NIfTI label map.
Label = str | int
HEART, CORONARY, NONCORONARY, IGNORED = "heart", "coronary", "noncoronary", "ignore"
#: Largest offset of an annotation from the grid of its series, in voxels.
_OFF_GRID_VOXELS = 0.1


@dataclass(frozen=True)
class LabelMapping:
    """Meaning of the labels of a lab: heart, coronary, noncoronary or ignore."""

    meaning: Mapping[Label, str]
    path: Path

    def of(self, label: Label, file: Path) -> str:
        """Return the meaning of a label.

        Raises
        ------
        TrainingDataError
            If the mapping does not contain it.
        """
        try:
            return self.meaning[_plain(label)]
        except KeyError:
            raise TrainingDataError(
                f"The annotation {file} holds the label {label!r}, which {self.path} does not map.",
                "Add it to that file, under coronary, noncoronary, heart or ignore.",
            ) from None


@dataclass(frozen=True)
class Annotation:
    """Masks of one reader, arrays (slice, row, column) on the canonical grid of the scan.

    `calcium` is 0 background, 1 coronary, 2 non-coronary; `heart` is the silhouette, all False
    where the reader drew none.
    """

    heart: NDArray[np.bool_]
    calcium: NDArray[np.uint8]


def combine(parts: Sequence[Annotation]) -> Annotation:
    """Combine the files of a reader to one annotation, with the heart as a closed silhouette.

    In a label map a voxel has one label, so that voxels marked as calcium are missing from the
    heart. Coronary calcium is added to the heart, and holes are filled slice by slice.
    """
    calcium = np.max([part.calcium for part in parts], axis=0)
    heart = np.any([part.heart for part in parts], axis=0)
    if heart.any():
        heart |= calcium == 1
        for k, plane in enumerate(heart):
            heart[k] = binary_fill_holes(plane)
    return Annotation(heart, calcium)


def read_mapping(path: Path) -> LabelMapping:
    """Read a label mapping.

    A TOML file: `heart` and `ignore` are lists of labels; the tables `coronary` (LM, LAD, ...) and
    `noncoronary` (mitral_valve, ascending_aorta, ...) list the labels of each structure, as text
    for DICOM SEG and as integers for NIfTI.

    Raises
    ------
    TrainingDataError
        If the file cannot be read, has other keys, or maps a label twice.
    """
    try:
        text = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingDataError(
            f"The label mapping {path} cannot be read ({type(error).__name__}).",
            "See docs/training.md for an example.",
        ) from None
    unknown = set(text) - {HEART, CORONARY, NONCORONARY, IGNORED}
    if unknown:
        raise TrainingDataError(
            f"The label mapping {path} has unknown keys: {', '.join(sorted(unknown))}.",
            "Allowed are heart, ignore, [coronary] and [noncoronary].",
        )
    meaning: dict[Label, str] = {}
    for group, content in text.items():
        lists = content.values() if isinstance(content, dict) else [content]
        for label in (label for labels in lists for label in labels):
            if meaning.setdefault(_plain(label), group) != group:
                raise TrainingDataError(
                    f"The label mapping {path} maps {label!r} both to {meaning[_plain(label)]} "
                    f"and to {group}.",
                    "Keep one of them.",
                )
    return LabelMapping(meaning, path)


def read_annotation(
    path: Path, mapping: LabelMapping, affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> Annotation:
    """Read one annotation file onto the grid of its scan; nothing is resampled.

    Parameters
    ----------
    path : DICOM SEG (.dcm or any other suffix) or NIfTI (.nii, .nii.gz) label map.
    mapping : meaning of the labels.
    affine : affine of the scan, 4 x 4, (slice, row, column, 1) to LPS millimetres.
    shape : slices, rows, columns of the scan.

    Raises
    ------
    TrainingDataError
        If the file cannot be read, lies on another grid, or has a label that is not mapped.
    """
    heart = np.zeros(shape, np.bool_)
    calcium = np.zeros(shape, np.uint8)
    for label, mask, grid in _parts(path):
        group = mapping.of(label, path)
        if group == IGNORED or not mask.any():
            continue
        box, inside = _place(path, grid, mask, affine, shape)
        if group == HEART:
            heart[box] |= inside
        else:
            calcium[box][inside] = 1 if group == CORONARY else 2
    if heart.any():
        # In a label map a voxel has one label: coronary calcium replaces the heart.
        heart |= calcium == 1
    return Annotation(heart, calcium)


def read_segments(
    path: Path, affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> Iterator[tuple[Label, tuple[slice, slice, slice], NDArray[np.bool_]]]:
    """Each label of an annotation file that is drawn, with its box on the grid and its mask there.

    Parameters
    ----------
    path, affine, shape : as in `read_annotation`.

    Raises
    ------
    TrainingDataError
        If the file cannot be read or lies on another grid.
    """
    for label, mask, grid in _parts(path):
        if mask.any():
            yield label, *_place(path, grid, mask, affine, shape)


def read_label_map(path: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Read a NIfTI file: values in canonical orientation (slice, row, column), and affine to LPS.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    """
    import nibabel
    from highdicom import Volume

    volume = Volume.from_nibabel(nibabel.load(path)).to_patient_orientation("HPL")
    return np.asarray(volume.array), np.asarray(volume.affine)


def _plain(label: Label) -> Label:
    return " ".join(label.split()).casefold() if isinstance(label, str) else int(label)


def _parts(path: Path) -> Iterator[tuple[Label, NDArray[np.bool_], NDArray[np.float64]]]:
    """Each label of a file, with its mask in canonical orientation and its affine."""
    try:
        if path.name.endswith((".nii", ".nii.gz")):
            yield from _nifti_parts(path)
        else:
            yield from _seg_parts(path)
    except ImportError:
        raise TrainingDataError(
            f"Annotations such as {path} need the optional packages for training.",
            "Install them: pip install 'cac-cohort[train]'.",
        ) from None
    except TrainingDataError:
        raise
    except Exception as error:  # noqa: BLE001 - libraries raise any exception on corrupt files
        raise TrainingDataError(
            f"The annotation {path} cannot be read ({type(error).__name__}).",
            "It must be a DICOM SEG or a NIfTI label map.",
        ) from None


def _nifti_parts(path: Path) -> Iterator[tuple[Label, NDArray[np.bool_], NDArray[np.float64]]]:
    values, affine = read_label_map(path)
    for value in np.unique(values):
        if value != 0:
            number = int(value) if float(value).is_integer() else str(value)
            yield number, np.asarray(values == value), affine


def _seg_parts(path: Path) -> Iterator[tuple[Label, NDArray[np.bool_], NDArray[np.float64]]]:
    from highdicom.seg import segread

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that violate their VR are harmless here
        segmentation = segread(path)
        for number in segmentation.segment_numbers:
            label = str(segmentation.get_segment_description(number).segment_label)
            volume = segmentation.get_volume(segment_numbers=[number], combine_segments=True)
            volume = volume.to_patient_orientation("HPL")
            yield label, np.asarray(volume.array) > 0, volume.affine


def _place(
    path: Path,
    grid: NDArray[np.float64],
    mask: NDArray[np.bool_],
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
) -> tuple[tuple[slice, slice, slice], NDArray[np.bool_]]:
    """Position of a mask on the grid of the scan; a SEG may hold only some of the slices."""
    relative = np.linalg.inv(affine) @ grid
    far = np.array([*mask.shape, 0]) - [1, 1, 1, 0]
    turned = np.abs((relative - np.eye(4))[:3] @ far).max()
    begin = np.rint(relative[:3, 3]).astype(int)
    shifted = np.abs(relative[:3, 3] - begin).max()
    inside = (begin >= 0).all() and (begin + mask.shape <= shape).all()
    if turned > _OFF_GRID_VOXELS or shifted > _OFF_GRID_VOXELS or not inside:
        raise TrainingDataError(
            f"The geometry of the annotation {path} does not match its series: "
            f"{mask.shape} voxels against {shape}, {max(turned, shifted):.2f} voxels off the grid.",
            "Export it on the grid of the CTAC series (no resampling), or correct the table.",
        )
    end = begin + mask.shape
    box = tuple(slice(int(a), int(b)) for a, b in zip(begin, end, strict=True))
    return (box[0], box[1], box[2]), mask
