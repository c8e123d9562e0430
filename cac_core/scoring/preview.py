"""Key slices of a scored volume as small images: the heart in grey, its contour and calcium.

The images show only the heart mask with a margin. They are stored with the scores, so that a report
can show what was scored without opening DICOM.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cac_core.scoring.lesions import CORONARY, NONCORONARY, Lesions
from schemas.codes import PreviewChoice
from schemas.preview import LABEL_CORONARY, LABEL_HEART, LABEL_NONCORONARY

#: Display window (black, white): that of soft tissue, wide enough to show calcium from 130 HU.
WINDOW_HU = (-160.0, 240.0)
#: Largest size in bytes of both images of a slice; a study has at most four slices.
MAX_BYTES = 15_000
MAX_SLICES = 4
_MAX_NONCORONARY = 2
_MARGIN_MM = 10.0
#: Longest side of an image in pixels; the pixels of finer volumes are merged.
_MAX_SIDE = 256
#: Grey levels, first choice and fallback. With 64 a step is 6 HU, far below the noise of these
#: scans, and an image is a quarter smaller than with 256.
_LEVELS = (64, 32)
#: Colours of the label image: black, grey, sky blue, vermilion.
_PALETTE = (0, 0, 0, 85, 85, 85, 86, 180, 233, 213, 94, 0)

Planes = tuple[NDArray[np.float32], NDArray[np.uint8]]


def preview_rows(
    hu: NDArray[np.int16],
    calcium_class: NDArray[np.uint8],
    heart_mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    positions_mm: NDArray[np.float64],
    lesions: Lesions,
) -> list[dict[str, object]]:
    """Return the rows of the table `previews` without the columns of the study, by slice.

    Parameters
    ----------
    hu, calcium_class, heart_mask : (slice, row, column); the mask must not be empty.
    spacing_mm : slice increment, row spacing, column spacing.
    positions_mm : (slice,), position of each slice along the body axis.
    lesions : lesions that were scored.

    Raises
    ------
    ValueError
        If the heart mask is empty.
    """
    rows, columns = _field(heart_mask, spacing_mm)
    coronary = lesions.calcium_class == CORONARY
    by_slice = np.bincount(
        lesions.slice_index[coronary], lesions.agatston[coronary], minlength=len(hu)
    )
    found = []
    for index, choice in sorted(key_slices(lesions, heart_mask).items()):
        box = np.s_[index, rows, columns]
        labels = _labels(heart_mask[box], calcium_class[box])
        row = _images(hu[box].astype(np.float32), labels, spacing_mm)
        row |= {"first_row": rows.start, "first_column": columns.start}
        row |= {"slice_index": index, "slice_position_mm": float(positions_mm[index])}
        row |= {"shown_for": choice.value, "agatston": float(by_slice[index])}
        found.append(row)
    return found


def key_slices(lesions: Lesions, heart_mask: NDArray[np.bool_]) -> dict[int, PreviewChoice]:
    """Choose the slices to show, with the reason.

    Up to four slices with the most coronary calcium by Agatston score. Without coronary calcium, up
    to two slices with the most other calcium, and the middle slice of the heart.

    Parameters
    ----------
    lesions : lesions that were scored.
    heart_mask : (slice, row, column), not empty.
    """
    chosen = _most(lesions, CORONARY, MAX_SLICES)
    if chosen:
        return dict.fromkeys(chosen, PreviewChoice.CORONARY)
    held = np.flatnonzero(heart_mask.any(axis=(1, 2)))
    middle = {int(held[len(held) // 2]): PreviewChoice.MID_HEART}
    others = _most(lesions, NONCORONARY, _MAX_NONCORONARY)
    return middle | dict.fromkeys(others, PreviewChoice.NONCORONARY)


def _most(lesions: Lesions, kind: int, at_most: int) -> list[int]:
    """Slices with the most calcium of a class, the lower of equal ones first."""
    of_kind = lesions.calcium_class == kind
    slices, inverse = np.unique(lesions.slice_index[of_kind], return_inverse=True)
    sums = np.bincount(inverse, lesions.agatston[of_kind], len(slices))
    return [int(index) for index in slices[np.argsort(-sums, kind="stable")[:at_most]]]


def _field(
    heart_mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> tuple[slice, slice]:
    """Rows and columns of the whole heart with a margin, the same for all slices of a study."""
    plane = np.asarray(heart_mask.any(axis=0))
    found = []
    for axis, profile in enumerate((plane.any(axis=1), plane.any(axis=0))):
        held = np.flatnonzero(profile)
        if not len(held):
            raise ValueError("the heart mask is empty")
        margin = round(_MARGIN_MM / spacing_mm[axis + 1])
        end = min(plane.shape[axis], int(held[-1]) + 1 + margin)
        found.append(slice(max(0, int(held[0]) - margin), end))
    return found[0], found[1]


def _labels(heart: NDArray[np.bool_], calcium: NDArray[np.uint8]) -> NDArray[np.uint8]:
    labels = np.where(heart, np.uint8(LABEL_HEART), np.uint8(0))
    labels[heart & (calcium == NONCORONARY)] = LABEL_NONCORONARY
    labels[heart & (calcium == CORONARY)] = LABEL_CORONARY
    return labels


def _images(
    values: NDArray[np.float32],
    labels: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
) -> dict[str, object]:
    """Both images of a slice, in the first form within the size limit, and their pixels."""
    low, high = WINDOW_HU
    shown = np.clip((values - low) / (high - low), 0.0, 1.0)
    for merged, levels in _forms(max(values.shape)):
        grey, label = _merge((shown, labels), merged)
        image, overlay = _grey_png(grey, levels), _label_png(label)
        if len(image) + len(overlay) <= MAX_BYTES:
            break
    return {
        "merged_pixels": merged,
        "row_spacing_mm": spacing_mm[1] * merged,
        "column_spacing_mm": spacing_mm[2] * merged,
        "window_low_hu": low,
        "window_high_hu": high,
        "image_png": image,
        "label_png": overlay,
    }


def _forms(longest: int) -> Iterator[tuple[int, int]]:
    """Merged pixels and grey levels, best first, down to one pixel."""
    first = -(-longest // _MAX_SIDE)
    for merged in range(first, longest + first):
        for levels in _LEVELS:
            yield merged, levels


def _merge(planes: Planes, merged: int) -> Planes:
    """Mean grey value and largest label of each block; blocks at the edge are padded."""
    shown, labels = planes
    if merged == 1:
        return planes
    pad = [(0, -size % merged) for size in shown.shape]
    rows, columns = (-(-size // merged) for size in shown.shape)
    blocks = rows, merged, columns, merged
    return (
        np.pad(shown, pad, mode="edge").reshape(blocks).mean(axis=(1, 3)),
        np.pad(labels, pad, mode="edge").reshape(blocks).max(axis=(1, 3)),
    )


def _grey_png(shown: NDArray[np.float32], levels: int) -> bytes:
    step = np.minimum((shown * levels).astype(np.uint8), levels - 1)
    return _png(Image.fromarray(np.round(step * (255.0 / (levels - 1))).astype(np.uint8)))


def _label_png(labels: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(labels).convert("L")
    image.putpalette(_PALETTE)
    return _png(image)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=6)
    return stream.getvalue()
