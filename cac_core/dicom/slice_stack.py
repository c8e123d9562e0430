"""Selects the slices of one scan from a series: excludes stray and repeated images, or refuses.

The result does not depend on order or names of the files: slices are sorted by their headers, and a
series for which that is not sufficient is refused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cac_core.dicom.frames import Frame
from cac_core.dicom.geometry import (
    GeometryError,
    GeometryFault,
    SliceGrid,
    check_extent,
    check_transverse,
    fit_slice_grid,
    group_by_position,
    middle_row,
    slice_normal,
)
from cac_core.dicom.slice_consistency import check_frames
from cac_core.errors import StudyError
from schemas.codes import QualityFlag, StudyReason

#: An image whose normal differs by more than 20 degrees from that of most is not a slice of the
#: scan. Closer ones are slices with a wrong header or another tilt; which one is unknown.
_STRAY_COSINE = 0.94
#: Fewest slices per stray image; with fewer the series is a mixture.
_SLICES_PER_STRAY = 4


@dataclass(frozen=True, slots=True)
class SliceStack:
    """Slices of one scan on a regular grid.

    Parameters
    ----------
    frames : the slices, in an order that follows from their headers.
    orientation : (6,), shared by the slices.
    pixel_spacing_mm : between rows, between columns.
    grid : positions; its groups hold indices into `frames`.
    flags : flags of excluded images and of inconsistent UIDs.
    """

    frames: list[Frame]
    orientation: NDArray[np.float64]
    pixel_spacing_mm: tuple[float, float]
    grid: SliceGrid
    flags: frozenset[QualityFlag]


def stack_slices(frames: Sequence[Frame], n_other: int, min_slices: int) -> SliceStack:
    """Find the slices of one scan among the images of a series.

    Excluded with a flag are localizers, images of a clearly different orientation, and single
    slices that another acquisition repeats at the same position (the acquisition with more slices
    is kept, at a tie the lower AcquisitionNumber). The series is refused where more than one image
    in five would be excluded, or where the other slices have a gap.

    Parameters
    ----------
    frames : all frames of the series, in any order.
    n_other : images that are already excluded because they are not CT slices.
    min_slices : fewest distinct positions.

    Raises
    ------
    StudyError
        `mixed_orientation`, `mixed_acquisitions`, or as `check_frames`.
    GeometryError
        As `check_transverse`, `fit_slice_grid` and `check_extent`.
    """
    ordered = sorted(frames, key=_order)
    slices = _of_prevailing_orientation([frame for frame in ordered if not frame.is_localizer])
    n_strays = n_other + len(ordered) - len(slices)
    if n_strays * _SLICES_PER_STRAY > len(slices):
        detail = f"{n_strays} localizers, captures or images of other orientation"
        raise StudyError(StudyReason.MIXED_ORIENTATION, f"{detail} to {len(slices)} slices")
    kept = _without_repeats(slices)
    orientation, grid = _common_grid(kept, n_strays, min_slices)
    pixel_spacing = middle_row(np.array([frame.pixel_spacing_mm for frame in kept]))
    spacing_mm = (float(pixel_spacing[0]), float(pixel_spacing[1]))
    check_extent(grid.spacing_mm, spacing_mm, (len(grid.groups), kept[0].rows, kept[0].columns))
    flags = set()
    if n_strays or len(kept) < len(slices):
        flags.add(QualityFlag.STRAY_IMAGES_SET_ASIDE)
    if _own_references(kept, grid):
        flags.add(QualityFlag.SEVERAL_FRAMES_OF_REFERENCE)
    if _shares_uid(kept, grid):
        flags.add(QualityFlag.REPEATED_SOP_INSTANCE_UID)
    return SliceStack(kept, orientation, spacing_mm, grid, frozenset(flags))


def _common_grid(
    slices: Sequence[Frame], n_strays: int, min_slices: int
) -> tuple[NDArray[np.float64], SliceGrid]:
    """Orientation and grid of the slices; a gap beside stray images is `mixed_orientation`."""
    try:
        orientation = check_frames(slices)
        check_transverse(orientation)
        positions = np.array([frame.position for frame in slices])
        return orientation, fit_slice_grid(positions, orientation, min_slices=min_slices)
    except GeometryError as error:
        gaps = (GeometryFault.MISSING_SLICES, GeometryFault.UNEVEN_SPACING)
        if n_strays and error.fault in gaps:
            detail = f"{n_strays} localizers or images of other orientation; without: {error}"
            raise StudyError(StudyReason.MIXED_ORIENTATION, detail) from None
        raise


def _order(frame: Frame) -> tuple[object, ...]:
    numbers = (frame.instance_number or 0, frame.acquisition_number or 0)
    return (frame.position, numbers, frame.instance_uid, frame.frame_index, frame.orientation)


def _of_prevailing_orientation(frames: list[Frame]) -> list[Frame]:
    """Exclude images whose normal differs clearly from that of the most frequent orientation."""
    counts = Counter(frame.orientation for frame in frames)
    if len(counts) < 2:
        return frames
    prevailing = min(counts, key=lambda orientation: (-counts[orientation], orientation))
    normals = {key: slice_normal(np.array(key)) for key in counts}
    lengths = [float(np.linalg.norm(normal)) for normal in normals.values()]
    if not np.allclose(lengths, 1.0, atol=0.05):
        return frames  # not direction cosines: `check_frames` refuses them
    return [
        frame
        for frame in frames
        if abs(normals[frame.orientation] @ normals[prevailing]) >= _STRAY_COSINE
    ]


def _without_repeats(frames: list[Frame]) -> list[Frame]:
    """Exclude the few slices that another acquisition repeats at the same position."""
    if len({frame.acquisition_number for frame in frames}) < 2:
        return frames
    orientation = middle_row(np.array([frame.orientation for frame in frames]))
    along = np.array([frame.position for frame in frames]) @ slice_normal(orientation)
    numbers = [frame.acquisition_number or 0 for frame in frames]
    groups = group_by_position(along)
    repeated = [group for group in groups if len({numbers[index] for index in group}) > 1]
    if not repeated or len(repeated) * _SLICES_PER_STRAY > len(groups):
        return frames
    counts = Counter(number for group in groups for number in {numbers[i] for i in group})
    excluded: set[int] = set()
    for group in repeated:
        best = min({numbers[index] for index in group}, key=lambda n: (-counts[n], n))
        excluded |= {index for index in group if numbers[index] != best}
    return [frame for index, frame in enumerate(frames) if index not in excluded]


def _own_references(frames: Sequence[Frame], grid: SliceGrid) -> bool:
    """Whether every position has its own frame of reference, on one regular grid.

    Some de-identification software writes a new FrameOfReferenceUID into every slice. Two or three
    frames of reference are two or three scans.

    Raises
    ------
    StudyError
        `mixed_acquisitions`.
    """
    references = {frame.frame_of_reference for frame in frames} - {None}
    if len(references) < 2:
        return False
    at_position = [{frames[index].frame_of_reference for index in group} for group in grid.groups]
    single = all(len(found) == 1 and None not in found for found in at_position)
    if not single or len(references) != len(grid.groups):
        raise StudyError(StudyReason.MIXED_ACQUISITIONS, f"{len(references)} frames of reference")
    return True


def _shares_uid(frames: Sequence[Frame], grid: SliceGrid) -> bool:
    """Whether files of different slices share a SOPInstanceUID, which only copies may."""
    places: defaultdict[str, defaultdict[int, set[int]]]
    places = defaultdict(lambda: defaultdict(set))
    for place, group in enumerate(grid.groups):
        for index in group:
            if frames[index].instance_uid:
                places[frames[index].instance_uid][frames[index].file_index].add(place)
    return any(
        len({frozenset(held) for held in by_file.values()}) > 1 for by_file in places.values()
    )
