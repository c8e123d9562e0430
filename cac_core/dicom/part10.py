"""A bounded walk over the data elements of a DICOM Part 10 header (PS3.10 section 7, PS3.5).

General readers trust the lengths and nesting a file declares; a hostile or broken file then costs
minutes and gigabytes. This walk reads few bytes, keeps only the elements asked for, jumps over all
other values, counts every step against `HeaderLimits`, and never recurses.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, field

_PREAMBLE = 132
_FIRST_READ = 16 * 1024
_NEXT_READ = 64 * 1024
_UNDEFINED = 0xFFFFFFFF
#: Values longer than this are never one of ours; they are treated as absent.
_MAX_VALUE_BYTES = 4096

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
#: SharedFunctionalGroupsSequence and PerFrameFunctionalGroupsSequence.
_FUNCTIONAL_GROUPS = frozenset((0x52009229, 0x52009230))
_PIXEL_TAGS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_MODALITY = 0x00080060
POSITION = 0x00200032

LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
#: GE private syntax: big-endian pixels under an implicit little-endian header.
_IMPLICIT_SYNTAXES = frozenset((IMPLICIT_LITTLE, "1.2.840.113619.5.2"))
#: Transfer syntaxes whose pixel data are plain numbers of a known length.
UNCOMPRESSED = frozenset((IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, "1.2.840.113619.5.2"))


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """What reading one header may cost before the file becomes a row `header_limits`.

    Parameters
    ----------
    header_bytes : bytes read of (or inflated from) one file.
    elements : data elements and sequence items walked.
    depth : nested sequences.
    seconds : time one file may take before its reader process is ended.
    memory_bytes : address space of one reader process.
    """

    header_bytes: int = 4 * 1024 * 1024
    elements: int = 200_000
    depth: int = 32
    seconds: float = 10.0
    memory_bytes: int = 2 * 1024**3


class MalformedHeaderError(Exception):
    """The bytes break the encoding rules of PS3.5."""


class TruncatedHeaderError(Exception):
    """The file ends inside its header."""


class LimitExceededError(Exception):
    """The header exceeds one of its limits."""


class NotDicomError(Exception):
    """Neither a Part 10 file nor a bare data set."""


@dataclass(slots=True)
class RawHeader:
    """Undecoded values of the elements asked for, filled as the walk goes.

    `values` are those of the data set itself, `nested` the first of each kind found in the
    functional groups of a multi-frame object, `positions` ImagePositionPatient of each frame.
    What was found before a fault stays, so that a broken file can still be put to its study.
    """

    values: dict[int, bytes] = field(default_factory=dict)
    nested: dict[int, bytes] = field(default_factory=dict)
    positions: list[bytes] = field(default_factory=list)
    transfer_syntax: str = ""
    media_class: str = ""
    has_preamble: bool = False
    little_endian: bool = True
    pixel_offset: int | None = None
    #: Declared bytes of the pixel data; None where the length is undefined (encapsulated).
    pixel_length: int | None = None
    #: Whether pydicom read it, from the beginning of the file only.
    read_by_pydicom: bool = False


class Window:
    """The part of a file (or of inflated bytes) that is in memory, moved on demand."""

    __slots__ = ("base", "buffer", "complete", "descriptor", "limits", "size", "spent", "steps")

    def __init__(self, descriptor: int, size: int, limits: HeaderLimits) -> None:
        self.descriptor = descriptor
        self.size = size
        self.limits = limits
        self.complete = True
        self.base = 0
        self.steps = 0
        first = min(_FIRST_READ, limits.header_bytes)
        self.buffer = os.pread(descriptor, first, 0)
        self.spent = len(self.buffer)

    def hold(self, position: int, count: int) -> int:
        """Make `count` bytes from `position` available; return their index in `buffer`."""
        index = position - self.base
        if index + count <= len(self.buffer):
            return index
        if position + count > self.size:
            if not self.complete:
                raise LimitExceededError("inflated bytes")
            raise TruncatedHeaderError
        wanted = min(max(count, _NEXT_READ), self.size - position)
        if self.spent + wanted > self.limits.header_bytes:
            wanted = count
        self.spent += wanted
        if self.spent > self.limits.header_bytes:
            raise LimitExceededError("bytes")
        if self.descriptor < 0:
            raise TruncatedHeaderError
        self.buffer = os.pread(self.descriptor, wanted, position)
        self.base = position
        if len(self.buffer) < count:
            raise TruncatedHeaderError
        return 0

    def inflate(self, position: int) -> None:
        """Replace the window by the inflated data set that starts at `position` of the file."""
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        limit = self.limits.header_bytes
        parts: list[bytes] = []
        start, total = position, 0
        while total < limit and not inflater.eof:
            chunk = inflater.unconsumed_tail or os.pread(self.descriptor, _NEXT_READ, position)
            if not inflater.unconsumed_tail:
                position += len(chunk)
                if not chunk:
                    break
            try:
                part = inflater.decompress(chunk, limit - total)
            except zlib.error:
                self._keep_inflated(start, limit)
                raise MalformedHeaderError("deflate") from None
            parts.append(part)
            total += len(part)
        self.complete = total < limit
        self.buffer, self.base, self.size, self.descriptor = b"".join(parts), 0, total, -1

    def _keep_inflated(self, start: int, limit: int) -> None:
        """Hold what a broken deflate stream gives before its fault: it may name the study.

        Some writers put the header of zlib before the stream, against PS3.5 A.5.
        """
        content = os.pread(self.descriptor, min(self.size - start, limit), start)
        found = [_inflated_until_fault(content, bits, limit) for bits in (-15, 15)]
        self.buffer = max(found, key=len)
        self.base, self.size, self.descriptor = 0, len(self.buffer), -1

    def remainder(self) -> bytes:
        """All bytes of the file, or of what was inflated of it, that the limits allow to read."""
        if self.descriptor < 0:
            return self.buffer
        return os.pread(self.descriptor, min(self.size, self.limits.header_bytes), 0)

    def count_step(self) -> None:
        """Count one element or item against the limit."""
        self.steps += 1
        if self.steps > self.limits.elements:
            raise LimitExceededError("elements")


def _inflated_until_fault(content: bytes, window_bits: int, limit: int) -> bytes:
    inflater = zlib.decompressobj(window_bits)
    parts: list[bytes] = []
    left = limit
    try:
        # Byte by byte, since a fault takes with it all that the same call has inflated.
        for place in range(len(content)):
            part = inflater.decompress(content[place : place + 1], left)
            parts.append(part)
            left -= len(part)
            if left <= 0 or inflater.eof:
                break
    except zlib.error:
        pass
    return b"".join(parts)


def walk_header(
    window: Window, raw: RawHeader, wanted: frozenset[int], nested: frozenset[int]
) -> None:
    """Fill `raw` with the `wanted` elements of the file behind `window`.

    Of an object that is not CT, nothing after group 0028 is looked at.

    Raises
    ------
    NotDicomError, MalformedHeaderError, TruncatedHeaderError, LimitExceededError
        With `raw` holding what was found until then.
    """
    start = _data_set_start(window, raw)
    if raw.transfer_syntax == DEFLATED:
        window.inflate(start)
        start = 0
    raw.little_endian = raw.transfer_syntax != EXPLICIT_BIG
    if start >= window.size:
        return
    explicit = _is_explicit(window, start, raw)
    _walk_data_set(window, start, raw, wanted, nested, explicit)


def _data_set_start(window: Window, raw: RawHeader) -> int:
    """Read the File Meta Information where there is one; return where the data set begins."""
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
        if element in (0x0002, 0x0010) and length <= 64:
            index = window.hold(value, length)
            text = window.buffer[index : index + length].decode("latin-1").strip(" \0")
            if element == 0x0010:
                raw.transfer_syntax = text
            else:
                raw.media_class = text
        position = value + length
    return position


def _looks_like_data_set(buffer: bytes, size: int) -> bool:
    """Tell whether the first bytes can be the first element of a data set without preamble."""
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
    """Whether VRs are written, by the first element; some files declare the wrong syntax."""
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
    window: Window,
    position: int,
    raw: RawHeader,
    wanted: frozenset[int],
    nested: frozenset[int],
    explicit: bool,
) -> None:
    order = "<" if raw.little_endian else ">"
    read_head = struct.Struct(order + "HH2sH").unpack_from
    read_long = struct.Struct(order + "I").unpack_from
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
            window.hold(position, 12)
            (length,) = read_long(buffer, index + 8)
            value = position + 12
        elif vr not in SHORT_VRS:
            raise MalformedHeaderError("value representation")
        window.count_step()
        if group > 0x0028 and _ends_interest(raw, tag, value, length):
            return
        if length == _UNDEFINED or tag in _FUNCTIONAL_GROUPS:
            if tag in wanted:
                values[tag] = b"sequence"
            end = -1 if length == _UNDEFINED else value + length
            frame = _Frame(end, _opens(vr, explicit, length), not explicit or vr == b"UN")
            enter = nested if tag in _FUNCTIONAL_GROUPS else None
            position = _walk_sequence(window, value, raw, frame, enter)
            buffer, base = window.buffer, window.base
            continue
        if value + length > size:
            window.hold(value, length)  # raises: the file, or what was inflated of it, ends here
        if tag in wanted and length <= _MAX_VALUE_BYTES:
            index = window.hold(value, length)
            buffer, base = window.buffer, window.base
            values[tag] = buffer[index : index + length]
        position = value + length
    if not window.complete:
        raise LimitExceededError("inflated bytes")


def _ends_interest(raw: RawHeader, tag: int, value: int, length: int) -> bool:
    """Whether the walk may stop: at the pixels of a CT, after group 0028 of anything else."""
    if raw.values.get(_MODALITY, b"").strip(b" \0") != b"CT":
        return True
    if tag not in _PIXEL_TAGS:
        return False
    raw.pixel_offset = value
    raw.pixel_length = None if length == _UNDEFINED else length
    return True


_SEQUENCE, _IN_ITEM, _FRAGMENTS = range(3)


@dataclass(slots=True)
class _Frame:
    """One level of nesting: where it ends (-1: at its delimiter), what it is, how it is coded."""

    end: int
    kind: int
    implicit: bool


def _opens(vr: bytes, explicit: bool, length: int) -> int:
    """Tell what a value of undefined length holds: items of elements, or fragments of bytes."""
    if explicit and length == _UNDEFINED and vr not in (b"SQ", b"UN"):
        return _FRAGMENTS
    return _SEQUENCE


def _walk_sequence(
    window: Window, position: int, raw: RawHeader, first: _Frame, nested: frozenset[int] | None
) -> int:
    """Walk one sequence to its end; with `nested`, enter all of it and keep those elements."""
    stack = [first]
    order = "<" if raw.little_endian else ">"
    read_head = struct.Struct(order + "HH2sH").unpack_from
    read_long = struct.Struct(order + "I").unpack_from
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
    if tag == _ITEM and top.kind == _FRAGMENTS and length != _UNDEFINED:
        return position + length
    if tag == _ITEM and top.kind == _SEQUENCE:
        end = -1 if length == _UNDEFINED else position + length
        stack.append(_Frame(end, _IN_ITEM, top.implicit))
        return position
    if tag == _ITEM_END and top.kind == _IN_ITEM:
        stack.pop()
        return position
    if tag == _SEQUENCE_END and top.kind != _IN_ITEM:
        stack.pop()
        return position
    raise MalformedHeaderError("delimiter")


#: Sequences to enter where implicit coding does not say that they are sequences: functional
#: groups of CT (PS3.3 C.8.15.3), plane, measures, and the unassigned ones of converted objects.
_IMPLICIT_SEQUENCES = frozenset(
    (
        *(0x00209113, 0x00209116, 0x00289110, 0x00189301, 0x00189304, 0x00189308, 0x00189312),
        *(0x00189314, 0x00189321, 0x00189325, 0x00189329, 0x00209111, 0x00209170, 0x00209171),
        *(0x00189118, 0x00180012),
    )
)


def _nested_element(
    window: Window,
    stack: list[_Frame],
    raw: RawHeader,
    nested: frozenset[int] | None,
    element: tuple[int, bytes, int, int],
) -> int:
    """Enter, keep or jump over one element inside an item; return where the next begins."""
    tag, vr, length, value = element
    explicit = not stack[-1].implicit
    is_sequence = vr == b"SQ" if explicit else tag in _IMPLICIT_SEQUENCES
    if length == _UNDEFINED or (nested is not None and is_sequence):
        end = -1 if length == _UNDEFINED else value + length
        stack.append(_Frame(end, _opens(vr, explicit, length), not explicit or vr == b"UN"))
        return value
    if nested is not None and tag in nested and length <= _MAX_VALUE_BYTES:
        index = window.hold(value, length)
        content = window.buffer[index : index + length]
        raw.nested.setdefault(tag, content)
        if tag == POSITION:
            raw.positions.append(content)
    if value + length > window.size:
        window.hold(value, length)
    return value + length
