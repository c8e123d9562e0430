"""Reads complete DICOM files within limits, and returns their values with checked types.

Values in archived headers often violate their VR: text instead of a number, three numbers instead
of one, bytes of another character set. The accessors return None for such values.
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from typing import Any, TypeVar, cast

from pydicom import config, dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cac_core.dicom import tags
from cac_core.dicom.archive_io import answered, answered_each, unreadable
from cac_core.dicom.header_values import plain_decimals
from cac_core.dicom.limits import ReadLimits
from cac_core.dicom.plain_file import PlainDataset, plain_dataset
from cac_core.errors import StudyError
from cac_core.storage import ArchiveFile, file_size, read_all
from schemas.codes import StudyReason

_Made = TypeVar("_Made")

#: Exceptions of pydicom on corrupt data sets and values, seen with real and mutated files.
PARSE_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    EOFError,
    OSError,
    struct.error,
    zlib.error,
    BytesLengthException,
    InvalidDicomError,
)

#: All elements that this package reads; skipping the others halves the time.
READ_KEYWORDS = (
    # kind of file
    "SOPClassUID",
    "SOPInstanceUID",
    "ImageType",
    "Modality",
    "FrameOfReferenceUID",
    "AcquisitionNumber",
    "InstanceNumber",
    # geometry
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "GantryDetectorTilt",
    # acquisition
    "Manufacturer",
    "ManufacturerModelName",
    "PatientPosition",
    "KVP",
    "XRayTubeCurrent",
    "Exposure",
    "ConvolutionKernel",
    # pixels
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "LossyImageCompression",
    "PixelData",
    # functional groups of multi-frame files
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
#: OverlayBitPosition of the 16 overlay planes, a repeating group without keywords.
_OVERLAY_BIT_POSITIONS = tuple(Tag(0x60000102 + (plane << 16)) for plane in range(0, 0x20, 2))
_READ_TAGS: list[BaseTag | int] = [
    *map(Tag, READ_KEYWORDS),
    *_OVERLAY_BIT_POSITIONS,
]
_PLAIN_TAGS = frozenset(map(int, _READ_TAGS)) - {tags.PixelData}
_META_GROUP = 0x0002
#: Largest plausible values, to interpret a comma; see `plain_decimals`.
_LARGEST = {
    "PixelSpacing": 100.0,
    "ImageOrientationPatient": 1.0,
    "SliceThickness": 100.0,
    "SpacingBetweenSlices": 100.0,
    "GantryDetectorTilt": 360.0,
    "RescaleSlope": 100.0,
    "KVP": 999.0,
    "XRayTubeCurrent": 999.0,
}


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Suppress warnings and logs of pydicom: they quote header values, including names."""
    propagate = config.logger.propagate
    config.logger.propagate = False  # includes the loggers of the decoders
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.logger.propagate = propagate


def read_files(paths: Sequence[ArchiveFile], limits: ReadLimits) -> Iterator[Dataset]:
    """Read the files of one series, each with its pixel data.

    Parameters
    ----------
    paths : files of the series.
    limits : largest number of files, bytes and inflated bytes.

    Raises
    ------
    StudyError
        `too_large` for too many files or bytes, before a byte is read; `archive_unavailable` where
        the drive is gone; `unreadable_file` where a file cannot be read (a later attempt may
        succeed) or is not a DICOM data set (it cannot).
    """
    if len(paths) > limits.max_slices:
        raise StudyError(StudyReason.TOO_LARGE, f"{len(paths)} files, {limits.max_slices} allowed")
    try:
        n_bytes = answered(lambda: sum(map(file_size, paths)))
    except OSError as error:
        raise unreadable(error) from None
    if n_bytes > limits.max_bytes:
        raise StudyError(StudyReason.TOO_LARGE, f"{n_bytes} bytes, {limits.max_bytes} allowed")
    budget = InflationBudget(limits.max_inflated_bytes)
    contents = answered_each(read_all(paths))
    while True:
        try:
            content = next(contents, None)
        except OSError as error:
            raise unreadable(error) from None
        if content is None:
            return
        yield parse_dataset(content, budget)


class InflationBudget:
    """Remaining bytes to which the deflated data sets of one series may inflate together.

    Counted over the series, because all its data sets are in memory at once: many small files
    within a limit per file could still exhaust the memory.

    Parameters
    ----------
    limit : bytes for the series.
    """

    def __init__(self, limit: int) -> None:
        self.limit = self.left = limit

    def inflate(self, content: bytes) -> bytes:
        """Inflate a raw deflate stream.

        Raises
        ------
        StudyError
            `too_large` where the series exceeds the limit.
        """
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        inflated = inflater.decompress(content, self.left + 1)
        self.left -= len(inflated)
        if self.left < 0:
            detail = f"the series inflates to more than {self.limit} bytes"
            raise StudyError(StudyReason.TOO_LARGE, detail)
        return inflated


def parse_dataset(content: bytes, budget: InflationBudget) -> Dataset:
    """Parse the bytes of one file; deflated data sets are inflated within the budget.

    Raises
    ------
    StudyError
        `unreadable_file` where the bytes are not a DICOM data set, `too_large`.
    """
    try:
        plain = plain_dataset(content, _PLAIN_TAGS)
        if plain is not None:
            return plain
        # Search the whole file: a long private meta element must not hide the UID.
        if DeflatedExplicitVRLittleEndian.encode() in content:
            return _parse_possibly_deflated(content, budget)
        dataset = dcmread(BytesIO(content), force=True, specific_tags=_READ_TAGS)
        if "Rows" not in dataset:
            # pydicom returns no elements at all where encapsulated pixel data are truncated.
            dataset = dcmread(
                BytesIO(content), force=True, specific_tags=_READ_TAGS, stop_before_pixels=True
            )
        return dataset
    except PARSE_ERRORS as error:
        detail = f"not a DICOM data set ({type(error).__name__})"
        raise StudyError(StudyReason.UNREADABLE_FILE, detail) from None


def transfer_syntax(dataset: Dataset) -> UID:
    """Return the transfer syntax; without a meta header, that of the actual encoding."""
    if isinstance(dataset, PlainDataset):
        return ExplicitVRLittleEndian
    meta = getattr(dataset, "file_meta", None)
    uid = text(meta, "TransferSyntaxUID") if meta is not None else None
    if uid is not None:
        return UID(uid)
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def value(dataset: Dataset, keyword: str) -> object:
    """Return the value of an element; None where absent, empty or not convertible."""
    try:
        element = dataset.get(_tag(keyword))  # by a keyword takes twice the time
        found = None if element is None else element.value
    except PARSE_ERRORS:
        return None
    return None if found is None or found == "" else found


def holds(dataset: Dataset, keyword: str) -> bool:
    """Whether an element is there, also an empty one."""
    return _tag(keyword) in dataset


def pixel_data(dataset: Dataset) -> tuple[object, bool]:
    """The value of PixelData, and whether its length is undefined (encapsulated).

    Raises
    ------
    KeyError
        If there is none; other `PARSE_ERRORS` if it cannot be read.
    """
    if isinstance(dataset, PlainDataset):
        return dataset.get_item("PixelData").value, False
    element = dataset["PixelData"]
    return element.value, element.is_undefined_length


@lru_cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def text(dataset: Dataset, keyword: str) -> str | None:
    """Return a value as stripped text, several joined by backslashes; None where empty.

    A sequence is no text: pydicom's description of deeply nested items can take minutes.
    """
    return _made_of(dataset, keyword, _as_text)


def numbers(dataset: Dataset, keyword: str) -> list[float] | None:
    """Return values as floats; None where absent or where one is not a number.

    Infinite and NaN values are returned; the caller decides what they mean.
    """
    found = _made_of(dataset, keyword, _as_numbers)
    return None if found is None else list(found)


def _made_of(
    dataset: Dataset, keyword: str, make: Callable[[object, str], _Made | None]
) -> _Made | None:
    """What is made of a value; once for all data sets that share it, None where there is none."""
    if not isinstance(dataset, PlainDataset):
        found = value(dataset, keyword)
        return None if found is None else make(found, keyword)
    shared = dataset.shared.get(_tag(keyword))
    if shared is None:
        return None
    if make not in shared.made:
        found = value(dataset, keyword)
        shared.made[make] = None if found is None else make(found, keyword)
    return cast("_Made | None", shared.made[make])


def _as_text(found: object, keyword: str) -> str | None:
    if _items(found):
        return None
    parts = [found] if isinstance(found, str) or not isinstance(found, Sequence) else found
    joined = "\\".join(str(part).strip() for part in parts)
    return joined.strip("\\ \0") or None


def _as_numbers(found: object, keyword: str) -> tuple[float, ...] | None:
    parts: Sequence[Any] = (
        [found] if isinstance(found, str) or not isinstance(found, Sequence) else found
    )
    if any("_" in str(getattr(part, "original_string", "")) for part in parts):
        return None  # Python reads "1_0" as ten; DICOM does not
    if any(isinstance(part, str) for part in parts):
        parts = plain_decimals([str(part) for part in parts], _LARGEST.get(keyword, 9999.0))
    try:
        return tuple(float(part) for part in parts)
    except (ValueError, TypeError, OverflowError):
        return None


def has_overlay_in_pixels(dataset: Dataset) -> bool:
    """Whether the unused high bits of the pixels hold an overlay (retired)."""
    known = dataset.shared if isinstance(dataset, PlainDataset) else dataset
    elements = (dataset.get(tag) for tag in _OVERLAY_BIT_POSITIONS if tag in known)
    return any(element is not None and element.value not in (None, 0, "") for element in elements)


def has_decimal_comma(dataset: Dataset, *keywords: str) -> bool:
    """Whether one of the numbers is written with a comma, which DICOM does not allow."""
    return any("," in (text(dataset, keyword) or "") for keyword in keywords)


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return the single finite number of an element, None otherwise."""
    found = numbers(dataset, keyword)
    return found[0] if found and len(found) == 1 and math.isfinite(found[0]) else None


def integer(dataset: Dataset, keyword: str) -> int | None:
    """Return the single integer of an element, None otherwise."""
    found = number(dataset, keyword)
    return int(found) if found is not None and found == int(found) else None


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; empty where it is absent or not a sequence."""
    return _items(value(dataset, keyword))


def _items(found: object) -> list[Dataset]:
    if not isinstance(found, Sequence) or isinstance(found, str):
        return []
    return [item for item in found if isinstance(item, Dataset)]


def _parse_possibly_deflated(content: bytes, budget: InflationBudget) -> Dataset:
    """Parse a file that mentions the deflated syntax: `dcmread` would inflate without a limit."""
    stream = BytesIO(content)
    if content[128:132] == b"DICM":
        stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=_beyond_meta_group)
    if UID(text(meta, "TransferSyntaxUID") or "") != DeflatedExplicitVRLittleEndian:
        return dcmread(BytesIO(content), force=True, specific_tags=_READ_TAGS)
    inflated = budget.inflate(content[stream.tell() :])
    dataset = read_dataset(BytesIO(inflated), False, True, specific_tags=_READ_TAGS)
    dataset.file_meta = FileMetaDataset(meta)
    return dataset


def _beyond_meta_group(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != _META_GROUP
