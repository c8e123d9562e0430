"""The images that a score was computed from, as the source of DICOM objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from cac_core.dicom import datafile
from cac_core.dicom.volume import CtVolume
from cac_core.errors import CacError
from cac_core.keys import Keyring
from cac_core.storage import ArchiveFile, read_all

#: Type 2 attributes of patient and study, which objects repeat; empty where the images lack them.
_REPEATED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("AccessionNumber", "StudyID", "ReferringPhysicianName"),
)
#: Optional references of study and patient to retired classes, which archives hold incomplete.
_NOT_REPEATED = ("ReferencedStudySequence", "ReferencedPatientSequence")
_SEXES = ("M", "F", "O", "")
_OFF_GRID = 0.2


class NotExportableError(CacError):
    """A study whose objects cannot be made or are not valid; becomes a row with this reason."""


@dataclass(frozen=True)
class SourceSeries:
    """The images of the scored slices, from foot to head, without pixels.

    Parameters
    ----------
    images : one per slice, or a single multi-frame image.
    affine : 4 x 4, (slice, row, column, 1) as stored to LPS millimetres, slices from foot to head.
    turn : matrix from canonical to stored voxel indices, 4 x 4.
    shape : slices, rows and columns as stored.
    """

    images: tuple[Dataset, ...]
    affine: NDArray[np.float64]
    turn: NDArray[np.intp]
    shape: tuple[int, int, int]

    def stored(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask on the canonical grid as the images store their pixels."""
        where = np.argwhere(mask)
        moved = where @ self.turn[:3, :3].T + self.turn[:3, 3]
        turned = np.zeros(self.shape, np.bool_)
        turned[tuple(moved.T)] = True
        return turned


def source_series(files: Sequence[ArchiveFile], volume: CtVolume, keyring: Keyring) -> SourceSeries:
    """Read the headers of the files of a scored series and find the image of each slice.

    Raises
    ------
    NotExportableError
        If the images do not hold the scored slices, or share their SOPInstanceUID.
    """
    with datafile.quiet_pydicom():
        placed: dict[int, tuple[Dataset, NDArray[np.float64]]] = {}
        inverse = np.linalg.inv(volume.affine)
        for image, plane in _readable(files):
            place = float((inverse @ plane[:, 3])[0])
            if abs(place - round(place)) < _OFF_GRID:
                placed.setdefault(round(place), (image, plane))
        if sorted(placed) != list(range(len(volume.hu))):
            raise NotExportableError(
                "The images do not hold the slices that were scored.", "Score the study again."
            )
        images = {id(image): image for _, (image, _) in sorted(placed.items())}
        _require_own_uids(list(images.values()))
        for image in images.values():
            _complete(image, keyring)
        return _series(tuple(images.values()), placed, volume)


def _series(
    images: tuple[Dataset, ...],
    placed: dict[int, tuple[Dataset, NDArray[np.float64]]],
    volume: CtVolume,
) -> SourceSeries:
    """The geometry of the images: that of the first slice, stepped as the volume is."""
    image, plane = placed[0]
    affine = plane.copy()
    affine[:, 0] = volume.affine[:, 0]
    turn = np.rint(np.linalg.inv(affine) @ volume.affine).astype(np.intp)
    shape = (len(volume.hu), int(image.Rows), int(image.Columns))
    return SourceSeries(images, affine, turn, shape)


def _readable(files: Sequence[ArchiveFile]) -> Iterator[tuple[Dataset, NDArray[np.float64]]]:
    try:
        yield from _planes(files)
    except (OSError, *datafile.PARSE_ERRORS) as error:
        raise NotExportableError(
            f"A file of the series cannot be read ({type(error).__name__}).", "Try again."
        ) from None


def _planes(files: Sequence[ArchiveFile]) -> Iterator[tuple[Dataset, NDArray[np.float64]]]:
    """Each plane of each file: its image, and (-, row, column, 1) to LPS millimetres."""
    for content in read_all(files):
        image = dcmread(BytesIO(content), force=True, stop_before_pixels=True)
        groups = datafile.items(image, "PerFrameFunctionalGroupsSequence")
        if not groups:
            plane = _plane([image])
            if plane is not None:
                yield image, plane
            continue
        shared = datafile.items(image, "SharedFunctionalGroupsSequence")
        for group in groups:
            plane = _plane([*_inside(group), *(item for each in shared for item in _inside(each))])
            if plane is not None:
                yield image, plane


def _inside(group: Dataset) -> list[Dataset]:
    names = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    return [item for name in names for item in datafile.items(group, name)]


def _plane(holders: Sequence[Dataset]) -> NDArray[np.float64] | None:
    def first(keyword: str, length: int) -> NDArray[np.float64] | None:
        for holder in holders:
            found = datafile.numbers(holder, keyword)
            if found is not None and len(found) == length:
                return np.array(found)
        return None

    position, spacing = first("ImagePositionPatient", 3), first("PixelSpacing", 2)
    cosines = first("ImageOrientationPatient", 6)
    if position is None or spacing is None or cosines is None:
        return None
    plane = np.zeros((4, 4))
    plane[:3, 1], plane[:3, 2] = cosines[3:] * spacing[0], cosines[:3] * spacing[1]
    plane[:3, 3], plane[3, 3] = position, 1.0
    return plane


def _require_own_uids(images: Sequence[Dataset]) -> None:
    uids = {datafile.text(image, "SOPInstanceUID") for image in images}
    series = {datafile.text(image, "SeriesInstanceUID") for image in images}
    if len(uids) != len(images) or None in uids or len(series) != 1 or None in series:
        raise NotExportableError(
            "The images have no SOPInstanceUID of their own: an object could not refer to them.",
            "Repair the UIDs in the archive.",
        )


def _complete(image: Dataset, keyring: Keyring) -> None:
    """Add what objects repeat and the images lack, and drop values that their VR forbids."""
    for name in _REPEATED:
        if datafile.value(image, name) is None:
            setattr(image, name, "")
    for name in _NOT_REPEATED:
        if name in image:
            del image[name]
    if str(image.PatientSex) not in _SEXES:
        image.PatientSex = ""
    if "FrameOfReferenceUID" not in image:
        series = str(image.SeriesInstanceUID)
        image.FrameOfReferenceUID = keyring.result_uid("frame-of-reference", series)
