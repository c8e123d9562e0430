"""Duplicate instances: which of several files with one SOPInstanceUID is used, if they agree.

Archives hold copies that were sent again, re-encoded, or windowed for a viewer. The choice among
them must not depend on the secret or on paths, and copies that differ must not be scored. The index
compares their bytes; where these differ, pixels and geometry are compared before scoring.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cac_core.dicom import datafile
from cac_core.dicom.enhanced import enhanced_frames, is_enhanced
from cac_core.dicom.frames import single_frame
from cac_core.dicom.header_geometry import POSITION_COLUMNS
from cac_core.dicom.hounsfield import declared_padding, to_hounsfield
from cac_core.dicom.limits import ReadLimits
from cac_core.dicom.pixels import FrameReader, pixel_layout
from cac_core.errors import StudyError
from cac_core.storage import ArchiveFile, RemoteFile
from schemas.codes import FileReason, StudyReason

_SERIES = ["study_key", "SeriesInstanceUID"]
_POSITION = list(POSITION_COLUMNS)
#: Columns that say which files hold the same instance; see `instance_numbers`.
IDENTITY_COLUMNS = (*_SERIES, "SOPInstanceUID", *_POSITION, "reason")
_DUPLICATE = FileReason.DUPLICATE_INSTANCE.value
_HASHERS = 4
#: Tolerance of positions and cosines: a re-encoded copy may round them.
_SAME_GEOMETRY = 1e-3


def instance_numbers(frame: pd.DataFrame) -> pd.Series[Any]:
    """Number the instances of `frame`; files with the same number are copies of each other.

    Copies share study, series and SOPInstanceUID. Some writers give all slices of a series the same
    UID; these are distinguished by position.

    Parameters
    ----------
    frame : columns `IDENTITY_COLUMNS`.

    Returns
    -------
    Numbers with the index of `frame`; -1 for rows that are not usable instances.
    """
    usable = (frame["reason"].isna() | (frame["reason"] == _DUPLICATE)).to_numpy()
    rows = frame.loc[usable, list(IDENTITY_COLUMNS[:-1])]
    series = rows.groupby(_SERIES, dropna=False)
    one_uid = series["SOPInstanceUID"].transform("nunique") == 1
    places = rows.groupby([*_SERIES, *_POSITION], dropna=False).ngroup()
    several = places.groupby([rows[name] for name in _SERIES], dropna=False).transform("nunique")
    shared = one_uid & (several > 1) & rows[_POSITION].notna().all(axis=1)
    rows = rows.assign(place=places.where(shared, -1))
    numbers = pd.Series(-1, index=frame.index, dtype="int64")
    names = [*_SERIES, "SOPInstanceUID", "place"]
    numbers.loc[rows.index] = rows.groupby(names, dropna=False).ngroup()
    return numbers


def mark_duplicates(table: pa.Table, digest_of: Callable[[str], str | None]) -> pa.Table:
    """Mark all but one copy of each instance as `duplicate_instance`.

    The copy with the lowest `content_digest` is kept: an arbitrary choice that does not depend on
    the secret or on paths. Known digests are reused. A truncated copy keeps its reason.

    Parameters
    ----------
    table : `instances`, with the digests of earlier runs.
    digest_of : returns the SHA-256 of the file of a path key, None where it cannot be read.
    """
    frame = table.select([*IDENTITY_COLUMNS, "path_key", "content_digest"]).to_pandas()
    frame["number"] = instance_numbers(frame)
    usable = frame["number"] >= 0
    copies = frame[usable & frame.duplicated("number", keep=False)]
    digests = pd.Series(None, index=frame.index, dtype=object)
    digests.loc[copies.index] = copies["content_digest"].where(
        copies["content_digest"].notna(), None
    )
    missing = [index for index in copies.index if digests[index] is None]
    with ThreadPoolExecutor(_HASHERS) as pool:
        found = pool.map(digest_of, copies.loc[missing, "path_key"])
        for index, digest in zip(missing, found, strict=True):
            digests[index] = digest
    # Unreadable files come last; among equal bytes the path may decide.
    ranked = copies.assign(digest=digests[copies.index].fillna("~")).sort_values(
        ["number", "digest", "path_key"]
    )
    reasons = frame["reason"].where(~usable, None)
    reasons.loc[ranked.index[ranked.duplicated("number").to_numpy()]] = _DUPLICATE
    columns = {"reason": reasons, "content_digest": digests}
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        array = pa.array(values, pa.string(), from_pandas=True)
        table = table.set_column(place, table.schema.field(place), array)
    return table


def file_digest(path: ArchiveFile) -> str | None:
    """Return the SHA-256 of a file, None where it cannot be read."""
    try:
        if isinstance(path, RemoteFile):
            return hashlib.sha256(path.read_bytes()).hexdigest()
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


class _Image(NamedTuple):
    """Content of one file that scoring uses: HU (frame, row, column) and geometry per frame."""

    hu: NDArray[np.int16]
    geometry: NDArray[np.float64]
    names: tuple[object, ...]


def resolve_duplicates(
    files: Sequence[tuple[ArchiveFile, int | None]],
    limits: ReadLimits = ReadLimits(),  # noqa: B008 - frozen
) -> list[ArchiveFile]:
    """Keep the first complete copy of each instance; refuse copies that differ.

    A copy with truncated pixel data is skipped where another one is complete.

    Parameters
    ----------
    files : each file with the number that differing copies of one instance share, or None. If all
        are None, no file is opened.
    limits : limits on the size of a file.

    Raises
    ------
    StudyError
        `conflicting_copies` where HU or geometry of two copies differ; faults of reading a file.
    """
    groups: dict[int | ArchiveFile, list[ArchiveFile]] = defaultdict(list)
    for path, instance in files:
        groups[path if instance is None else instance].append(path)
    return [_agreed(copies, limits) if len(copies) > 1 else copies[0] for copies in groups.values()]


def _agreed(copies: Sequence[ArchiveFile], limits: ReadLimits) -> ArchiveFile:
    """Return the first complete one of several copies of an instance."""
    images: list[tuple[ArchiveFile, _Image]] = []
    truncated: list[StudyError] = []
    for path in copies:
        try:
            images.append((path, _read(path, limits)))
        except StudyError as error:
            if error.reason is not StudyReason.TRUNCATED_PIXEL_DATA:
                raise
            truncated.append(error)
    if not images:
        raise truncated[0]
    (first, reference), *others = images
    for _, image in others:
        difference = _difference(reference, image)
        if difference:
            detail = f"copies of an instance differ in {difference}"
            raise StudyError(StudyReason.CONFLICTING_COPIES, detail)
    return first


def _read(path: ArchiveFile, limits: ReadLimits) -> _Image:
    try:
        with datafile.quiet_pydicom():
            (dataset,) = datafile.read_files([path], limits)
            return _image(dataset, limits)
    except StudyError:
        raise
    except datafile.PARSE_ERRORS as error:
        detail = f"{type(error).__module__}.{type(error).__qualname__}"
        raise StudyError(StudyReason.INTERNAL_ERROR, detail, rejected=False) from error


def _image(dataset: Dataset, limits: ReadLimits) -> _Image:
    layout = pixel_layout(dataset, limits)
    if is_enhanced(dataset):
        frames = list(enhanced_frames(dataset, layout, 0))
    else:
        frames = [single_frame(dataset, layout, 0)]
    padding = declared_padding(dataset, layout.bits_allocated, layout.signed)
    reader = FrameReader(dataset, layout)
    hu = np.empty((len(frames), frames[0].rows, frames[0].columns), np.int16)
    for number, frame in enumerate(frames):
        stored = reader.stored(frame.frame_index)
        hu[number], _ = to_hounsfield(stored, frame.slope, frame.intercept, padding)
    geometry = [(*f.position, *f.orientation, *f.pixel_spacing_mm, f.tilt_deg) for f in frames]
    names = (
        datafile.number(dataset, "KVP"),
        *(item for f in frames for item in (f.frame_of_reference, f.acquisition_number)),
    )
    return _Image(hu, np.array(geometry, np.float64), names)


def _difference(one: _Image, other: _Image) -> str:
    """Name what differs between two copies and affects a score; empty where they agree."""
    if one.hu.shape != other.hu.shape:
        return "matrix"
    if not np.array_equal(one.hu, other.hu):
        return "pixels"
    if not np.allclose(one.geometry, other.geometry, rtol=0.0, atol=_SAME_GEOMETRY):
        return "geometry"
    return "" if one.names == other.names else "tube voltage, frame of reference or acquisition"
