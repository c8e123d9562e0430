"""A bounded walk over the data elements of a DICOM Part 10 header (PS3.10 section 7, PS3.5).

General readers trust the lengths and nesting that a file declares, and a hostile or corrupt file
then costs minutes and gigabytes. This walk reads few bytes, keeps only the wanted elements, skips
all other values, counts every element against `HeaderLimits`, and does not recurse.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cac_core.dicom import tags
from cac_core.dicom.byte_window import (
    LimitExceededError,
    MalformedHeaderError,
    NotDicomError,
    TruncatedHeaderError,
    Window,
)

_PREAMBLE = 132
_UNDEFINED = 0xFFFFFFFF
#: Longer values count as absent; no wanted element needs as much.
_MAX_VALUE_BYTES = 4096

_FUNCTIONAL_GROUPS = frozenset(
    (tags.SharedFunctionalGroupsSequence, tags.PerFrameFunctionalGroupsSequence)
)
_PIXEL_TAGS = frozenset((tags.FloatPixelData, tags.DoubleFloatPixelData, tags.PixelData))

LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
#: Private syntax of GE: big-endian pixels under an implicit little-endian header.
_GE_PRIVATE = "1.2.840.113619.5.2"
_IMPLICIT_SYNTAXES = frozenset((IMPLICIT_LITTLE, _GE_PRIVATE))
#: Transfer syntaxes whose pixel data are uncompressed and so have a known length.
UNCOMPRESSED = frozenset((IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, _GE_PRIVATE))


#: Reads values at a position of a buffer.
_Reader = Callable[[bytes, int], tuple[Any, ...]]


@dataclass(slots=True)
class RawHeader:
    """Undecoded values of the wanted elements, filled during the walk.

    `values` holds those of the data set, `nested` the first value of each tag in the functional
    groups of a multi-frame object, `positions` ImagePositionPatient of each frame. Values found
    before a fault are kept, so that a corrupt file can still be assigned to its study.
    """

    values: dict[int, bytes] = field(default_factory=dict)
    #: Value representations of these, and of wanted elements whose values are too long to keep.
    representations: dict[int, bytes] = field(default_factory=dict)
    nested: dict[int, bytes] = field(default_factory=dict)
    positions: list[bytes] = field(default_factory=list)
    transfer_syntax: str = ""
    media_class: str = ""
    has_preamble: bool = False
    little_endian: bool = True
    pixel_offset: int | None = None
    #: Declared length of the pixel data in bytes; None where undefined (encapsulated).
    pixel_length: int | None = None
    #: True where pydicom read it, from the beginning of the file only.
    read_by_pydicom: bool = False


def walk_header(
    window: Window, raw: RawHeader, wanted: frozenset[int], nested: frozenset[int]
) -> None:
    """Fill `raw` with the `wanted` elements of the file behind `window`.

    Of an object that is not CT, the walk stops after group 0028.

    Parameters
    ----------
    wanted : tags of the data set.
    nested : tags in the functional groups of a multi-frame object.

    Raises
    ------
    NotDicomError, MalformedHeaderError, TruncatedHeaderError, LimitExceededError
        With `raw` holding the values found before the fault.
    """
    start = _data_set_start(window, raw)
    if raw.transfer_syntax == DEFLATED:
        window.inflate(start)
        start = 0
    raw.little_endian = raw.transfer_syntax != EXPLICIT_BIG
    if start >= window.size:
        return
    _walk_data_set(window, start, raw, wanted, nested)


def _data_set_start(window: Window, raw: RawHeader) -> int:
    """Read the File Meta Information, if any; return where the data set begins."""
    if window.buffer[128:_PREAMBLE] == b"DICM":
        raw.has_preamble = True
        position = _PREAMBLE
    elif _looks_like_data_set(window.buffer, window.size):
        position = 0
    else:
        raise NotDicomError
    while position + 8 <= window.size:
        index = window.hold(position, min(12, window.size - position))
        group, element, vr, length = struct.unpack_from("<HH2sH", window.buffer, index)
        if group != 0x0002:
            break
        window.count_step()
        value = position + 8
        if vr in LONG_VRS:
            value = position + 12
            (length,) = struct.unpack_from("<I", window.buffer, window.hold(position, 12) + 8)
        elif vr not in SHORT_VRS:
            raise MalformedHeaderError("file meta")
        if value + length > window.size:
            raise TruncatedHeaderError
        tag = group << 16 | element
        if tag in (tags.MediaStorageSOPClassUID, tags.TransferSyntaxUID) and length <= 64:
            index = window.hold(value, length)
            text = window.buffer[index : index + length].decode("latin-1").strip(" \0")
            if tag == tags.TransferSyntaxUID:
                raw.transfer_syntax = text
            else:
                raw.media_class = text
        position = value + length
    return position


def _looks_like_data_set(buffer: bytes, size: int) -> bool:
    """Whether the first bytes can be the first element of a data set without preamble."""
    if len(buffer) < 16:
        return False
    for order in ("<", ">"):
        group, element, vr, _ = struct.unpack_from(order + "HH2sH", buffer)
        if group not in (0x0002, 0x0008) or element > 0x0100:
            continue
        if vr in SHORT_VRS or vr in LONG_VRS:
            return True
        (length,) = struct.unpack_from(order + "I", buffer, 4)
        if order == "<" and length <= min(size, _MAX_VALUE_BYTES):
            return True
    return False


def _is_explicit(window: Window, start: int, raw: RawHeader) -> bool:
    """Whether VRs are explicit, by the first element: some files declare the wrong syntax."""
    index = window.hold(start, min(8, window.size - start))
    head = window.buffer[index : index + 8]
    declared = raw.transfer_syntax not in _IMPLICIT_SYNTAXES
    if len(head) < 8:
        return declared
    explicit = head[4:6] in SHORT_VRS or head[4:6] in LONG_VRS
    if not raw.transfer_syntax:
        raw.little_endian = head[0] != 0
        raw.transfer_syntax = EXPLICIT_LITTLE if explicit else IMPLICIT_LITTLE
        if not raw.little_endian:
            raw.transfer_syntax = EXPLICIT_BIG
    return explicit


def _walk_data_set(
    window: Window, position: int, raw: RawHeader, wanted: frozenset[int], nested: frozenset[int]
) -> None:
    explicit = _is_explicit(window, position, raw)
    read_head, read_long = _readers(raw)
    size, values = window.size, raw.values
    buffer, base = window.buffer, window.base
    while position + 8 <= size:
        index = position - base
        if index + 12 > len(buffer):
            index = window.hold(position, min(12, size - position))
            buffer, base = window.buffer, window.base
        group, element, vr, length = read_head(buffer, index)
        tag, value = group << 16 | element, position + 8
        if not explicit:
            (length,) = read_long(buffer, index + 4)
        elif vr in LONG_VRS:
            (length,) = read_long(window.buffer, window.hold(position, 12) + 8)
            value = position + 12
        elif vr not in SHORT_VRS:
            raise MalformedHeaderError("value representation")
        window.count_step()
        if group > 0x0028 and _is_last(raw, tag, value, length):
            return
        if length == _UNDEFINED or tag in _FUNCTIONAL_GROUPS:
            values.update(dict.fromkeys(wanted & {tag}, b"sequence"))
            frame = _sequence_frame((tag, vr, length, value), explicit)
            enter = nested if tag in _FUNCTIONAL_GROUPS else None
            position = _walk_sequence(window, value, raw, frame, enter)
            buffer, base = window.buffer, window.base
            continue
        if tag in wanted:
            raw.representations[tag] = vr
            if length <= _MAX_VALUE_BYTES:
                index = window.hold(value, length)
                buffer, base = window.buffer, window.base
                values[tag] = buffer[index : index + length]
        position = value + length
    _check_end(window, position)


def _readers(raw: RawHeader) -> tuple[_Reader, _Reader]:
    """Functions that read the head of an element, and a length of four bytes, in a buffer."""
    order = "<" if raw.little_endian else ">"
    return struct.Struct(order + "HH2sH").unpack_from, struct.Struct(order + "I").unpack_from


def _check_end(window: Window, position: int) -> None:
    """Raise where the last element reaches beyond the file, or inflating stopped at the limit."""
    if position > window.size:
        window.hold(position, 0)
    if not window.complete:
        raise LimitExceededError("inflated bytes")


def _is_last(raw: RawHeader, tag: int, value: int, length: int) -> bool:
    """Whether the walk may stop: at the pixels of a CT, after group 0028 of another object."""
    if raw.values.get(tags.Modality, b"").strip(b" \0") != b"CT":
        return True
    if tag not in _PIXEL_TAGS:
        return False
    raw.pixel_offset = value
    raw.pixel_length = None if length == _UNDEFINED else length
    return True


_SEQUENCE, _IN_ITEM, _FRAGMENTS = range(3)


@dataclass(slots=True)
class _Frame:
    """One level of nesting: its end (-1: at its delimiter), kind, and encoding."""

    end: int
    kind: int
    implicit: bool


def _sequence_frame(element: tuple[int, bytes, int, int], explicit: bool) -> _Frame:
    """Return the level that an element (tag, VR, length, start of its value) opens."""
    _, vr, length, value = element
    end = -1 if length == _UNDEFINED else value + length
    return _Frame(end, _opens(vr, explicit, length), not explicit or vr == b"UN")


def _opens(vr: bytes, explicit: bool, length: int) -> int:
    """Return what a value of undefined length holds: items of elements, or fragments of bytes."""
    if explicit and length == _UNDEFINED and vr not in (b"SQ", b"UN"):
        return _FRAGMENTS
    return _SEQUENCE


def _walk_sequence(
    window: Window, position: int, raw: RawHeader, first: _Frame, nested: frozenset[int] | None
) -> int:
    """Walk one sequence to its end; with `nested`, enter its items and keep those elements."""
    stack = [first]
    read_head, read_long = _readers(raw)
    while stack:
        top = stack[-1]
        if 0 <= top.end <= position:
            if position > top.end:
                raise MalformedHeaderError("item length")
            stack.pop()
            continue
        window.count_step()
        index = window.hold(position, 8)
        group, element, vr, length = read_head(window.buffer, index)
        tag = group << 16 | element
        if group == 0xFFFE or top.kind != _IN_ITEM:
            (length,) = read_long(window.buffer, index + 4)
            position = _delimit(stack, tag, length, position + 8)
        else:
            value = position + 8
            if top.implicit:
                (length,) = read_long(window.buffer, index + 4)
            elif vr in LONG_VRS:
                (length,) = read_long(window.buffer, window.hold(position, 12) + 8)
                value = position + 12
            elif vr not in SHORT_VRS:
                raise MalformedHeaderError("value representation")
            position = _nested_element(window, stack, raw, nested, (tag, vr, length, value))
        if len(stack) > 2 * window.limits.depth:
            raise LimitExceededError("depth")
    return position


def _delimit(stack: list[_Frame], tag: int, length: int, position: int) -> int:
    """Open an item, or close an item or a sequence; return where the next element begins."""
    top = stack[-1]
    if tag == tags.Item and top.kind == _FRAGMENTS and length != _UNDEFINED:
        return position + length
    if tag == tags.Item and top.kind == _SEQUENCE:
        end = -1 if length == _UNDEFINED else position + length
        stack.append(_Frame(end, _IN_ITEM, top.implicit))
        return position
    if tag == tags.ItemDelimitationItem and top.kind == _IN_ITEM:
        stack.pop()
        return position
    if tag == tags.SequenceDelimitationItem and top.kind != _IN_ITEM:
        stack.pop()
        return position
    raise MalformedHeaderError("delimiter")


#: Sequences of the functional groups of CT (PS3.3 C.8.15.3) that are entered: implicit encoding
#: does not mark an element as a sequence.
_IMPLICIT_SEQUENCES = frozenset(
    tags.by_keyword(
        "CTAcquisitionTypeSequence",
        "CTAcquisitionDetailsSequence",
        "CTTableDynamicsSequence",
        "CTGeometrySequence",
        "CTReconstructionSequence",
        "CTExposureSequence",
        "CTXRayDetailsSequence",
        "CTImageFrameTypeSequence",
        "CardiacSynchronizationSequence",
        "ContrastBolusAgentSequence",
        "FrameContentSequence",
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "UnassignedSharedConvertedAttributesSequence",
        "UnassignedPerFrameConvertedAttributesSequence",
    ).values()
)


def _nested_element(
    window: Window,
    stack: list[_Frame],
    raw: RawHeader,
    nested: frozenset[int] | None,
    element: tuple[int, bytes, int, int],
) -> int:
    """Enter, keep or skip one element of an item; return where the next begins."""
    tag, vr, length, value = element
    explicit = not stack[-1].implicit
    is_sequence = vr == b"SQ" if explicit else tag in _IMPLICIT_SEQUENCES
    if length == _UNDEFINED or (nested is not None and is_sequence):
        stack.append(_sequence_frame(element, explicit))
        return value
    if nested is not None and tag in nested and length <= _MAX_VALUE_BYTES:
        index = window.hold(value, length)
        content = window.buffer[index : index + length]
        raw.nested.setdefault(tag, content)
        if tag == tags.ImagePositionPatient:
            raw.positions.append(content)
    if value + length > window.size:
        window.hold(value, length)
    return value + length
