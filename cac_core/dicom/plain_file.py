"""Data sets of plain files: what pydicom would read, without its walk over every element.

Most files of an archive are Part 10 files in explicit little endian with uncompressed pixels.
`cac_core.dicom.part10` walks their header, and values that the slices of a series share are
converted once. Any other file is left to pydicom.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from pydicom.charset import default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import (
    DataElement,
    RawDataElement,
    convert_raw_data_element,
    empty_value_for_VR,
)
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRLittleEndian

from cac_core.dicom import tags
from cac_core.dicom.byte_window import (
    LimitExceededError,
    MalformedHeaderError,
    NotDicomError,
    TruncatedHeaderError,
    Window,
)
from cac_core.dicom.limits import HeaderLimits
from cac_core.dicom.part10 import EXPLICIT_LITTLE, RawHeader, walk_header

_TEXTS = frozenset(("CS", "DS", "IS", "LO", "SH", "UI"))
_PIXELS = (b"OB", b"OW")
#: Announces another character set (ISO 2022).
_ESCAPE = 0x1B
_LIMITS = HeaderLimits()


class SharedElement:
    """An element of several data sets, and what was made of its value.

    Parameters
    ----------
    element : as pydicom gives it.
    """

    __slots__ = ("element", "made")

    def __init__(self, element: DataElement | RawDataElement) -> None:
        self.element = element
        self.made: dict[Callable[..., Any], Any] = {}


class PlainDataset(Dataset):
    """The data set of a plain file, with its elements beside those of pydicom.

    Parameters
    ----------
    pixels : the element of the pixel data.
    shared : the other elements.
    """

    def __init__(self, pixels: RawDataElement, shared: dict[BaseTag, SharedElement]) -> None:
        elements: dict[BaseTag, DataElement | RawDataElement]
        elements = {tag: one.element for tag, one in shared.items()}
        elements[pixels.tag] = pixels
        super().__init__(elements)
        self.shared: dict[BaseTag, SharedElement]
        # pydicom looks at each attribute that is set, whether it is an element.
        self.__dict__["shared"] = shared
        self.__dict__["file_meta"] = _META
        self.set_original_encoding(False, True)


def plain_dataset(content: bytes, wanted: frozenset[int]) -> PlainDataset | None:
    """The wanted elements and the pixel data of a plain file; None for any other file.

    They equal those that `pydicom.dcmread` gives. Data sets share elements with equal values.

    Parameters
    ----------
    content : the whole file.
    wanted : tags without PixelData.
    """
    raw = RawHeader()
    try:
        window = Window(lambda count, begin: content[begin : begin + count], len(content), _LIMITS)
        walk_header(window, raw, wanted, frozenset())
    except (LimitExceededError, MalformedHeaderError, NotDicomError, TruncatedHeaderError):
        return None
    pixels = _pixels(raw, content) if _is_plain(raw) else None
    if pixels is None:
        return None
    shared: dict[BaseTag, SharedElement] = {}
    for tag, value in raw.values.items():
        element = _element(tag, raw.representations[tag], value)
        if element is None:
            return None
        shared[element.element.tag] = element
    return PlainDataset(pixels, shared)


def _is_plain(raw: RawHeader) -> bool:
    return (
        raw.has_preamble
        and raw.transfer_syntax == EXPLICIT_LITTLE
        and raw.values.keys() == raw.representations.keys()
    )


def _pixels(raw: RawHeader, content: bytes) -> RawDataElement | None:
    """The element of the pixel data; None where it is encapsulated, truncated or absent."""
    begin, length = raw.pixel_offset, raw.pixel_length
    if begin is None or length is None or begin + length > len(content):
        return None
    vr = content[begin - 8 : begin - 6]  # then two reserved bytes, and four of the length
    if vr not in _PIXELS:
        return None
    value = cast("bytes", memoryview(content)[begin : begin + length])
    return RawDataElement(BaseTag(tags.PixelData), vr.decode(), length, value, begin, False, True)


@lru_cache(maxsize=4096)
def _element(tag: int, vr: bytes, value: bytes) -> SharedElement | None:
    """One element, converted where its value is valid; None if it is not plain.

    A value that cannot be converted stays raw: its error belongs to those who read it.
    """
    text = vr.decode("latin-1")
    if text not in dictionary_VR(tag).split(" or "):
        return None
    if text in _TEXTS and (not value.isascii() or _ESCAPE in value):
        return None
    content = value or cast("bytes | None", empty_value_for_VR(text, raw=True))
    raw = RawDataElement(BaseTag(tag), text, len(value), content, 0, False, True)
    try:
        return SharedElement(convert_raw_data_element(raw, encoding=[default_encoding]))
    except Exception:  # noqa: BLE001 - whatever pydicom raises, it raises again when it is read
        return SharedElement(raw)


_META = FileMetaDataset()
_META.TransferSyntaxUID = ExplicitVRLittleEndian
