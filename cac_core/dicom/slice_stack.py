"""The slices of one scan out of what a series holds: strays and repeats set aside, or refused.

What is kept never depends on the order or the names of the files: slices are sorted by what their
headers say, and where that does not decide, the series is refused.
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
from cac_core.dicom.series_checks import check_frames
from cac_core.errors import StudyError
from schemas.codes import QualityFlag, StudyReason

#: An image whose normal is further than 20 degrees from that of most is no slice of theirs; nearer
#: ones are slices with a wrong header or of another tilt, and nobody can say which.
_STRAY_COSINE = 0.94
#: More than one stray to so many slices is a mixture, not a series with a stray.
_SLICES_PER_STRAY = 4


@dataclass(frozen=True, slots=True)
class SliceStack:
    """Slices of one scan on a regular grid.

    Parameters
    ----------
    frames : the slices kept, in an order that follows from their headers.
    orientation : (6,), common to them.
    pixel_spacing_mm : between rows, between columns.
    grid : positions; its groups hold indices into `frames`.
    flags : what was set aside or passed over.
    """

    frames: list[Frame]
    orientation: NDArray[np.float64]
    pixel_spacing_mm: tuple[float, float]
    grid: SliceGrid
    flags: frozenset[QualityFlag]


def stack_slices(frames: Sequence[Frame], n_other: int, min_slices: int) -> SliceStack:
    """Find the slices of one scan among the images of a series.

    Set aside, and flagged: localizers, images of quite another orientation, and single slices
    that another acquisition repeats at the same position (the acquisition with more slices is
    kept, at a tie the lower AcquisitionNumber). Nothing is set aside where more than one image in
    five would be, or where the others have a gap then.

    Parameters
    ----------
    frames : all frames of the series, any order.
    n_other : images already set aside because they are no CT slices.
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
    try:
        orientation = check_frames(kept)
        check_transverse(orientation)
        positions = np.array([frame.position for frame in kept])
        grid = fit_slice_grid(positions, orientation, min_slices=min_slices)
    except GeometryError as error:
        gaps = (GeometryFault.MISSING_SLICES, GeometryFault.UNEVEN_SPACING)
        if n_strays and error.fault in gaps:
            detail = f"{n_strays} localizers or images of other orientation; without: {error}"
            raise StudyError(StudyReason.MIXED_ORIENTATION, detail) from None
        raise
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


def _order(frame: Frame) -> tuple[object, ...]:
    numbers = (frame.instance_number or 0, frame.acquisition_number or 0)
    return (frame.position, numbers, frame.instance_uid, frame.frame_index, frame.orientation)


def _of_prevailing_orientation(frames: list[Frame]) -> list[Frame]:
    """Leave out images whose normal lies far from that of the most frequent orientation."""
    counts = Counter(frame.orientation for frame in frames)
    if len(counts) < 2:
        return frames
    prevailing = min(counts, key=lambda orientation: (-counts[orientation], orientation))
    normals = {key: slice_normal(np.array(key)) for key in counts}
    lengths = [float(np.linalg.norm(normal)) for normal in normals.values()]
    if not np.allclose(lengths, 1.0, atol=0.05):
        return frames  # no directions at all: `check_frames` says so
    return [
        frame
        for frame in frames
        if abs(normals[frame.orientation] @ normals[prevailing]) >= _STRAY_COSINE
    ]


def _without_repeats(frames: list[Frame]) -> list[Frame]:
    """Leave out the few slices that another acquisition gives again at the same position."""
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
    aside: set[int] = set()
    for group in repeated:
        best = min({numbers[index] for index in group}, key=lambda n: (-counts[n], n))
        aside |= {index for index in group if numbers[index] != best}
    return [frame for index, frame in enumerate(frames) if index not in aside]


def _own_references(frames: Sequence[Frame], grid: SliceGrid) -> bool:
    """Tell whether every position has a frame of reference of its own, on one regular grid.

    Some software that removes identities writes a new FrameOfReferenceUID into every slice. Two
    or three frames of reference are two or three scans.

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
    """Tell whether files of different slices carry one SOPInstanceUID; copies of a file may."""
    places: defaultdict[str, defaultdict[int, set[int]]]
    places = defaultdict(lambda: defaultdict(set))
    for place, group in enumerate(grid.groups):
        for index in group:
            if frames[index].instance_uid:
                places[frames[index].instance_uid][frames[index].file_index].add(place)
    return any(
        len({frozenset(held) for held in by_file.values()}) > 1 for by_file in places.values()
    )
