"""Mutations of DICOM files and of registry extracts: structure-aware and random, from one number.

The same seed and number give the same input, so that a finding can be made again.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pydicom.data

_LONG_VRS = frozenset((b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UR", b"UT", b"UN"))
_VRS = (
    *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT"),
    *(b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US", b"SV", b"UV"),
    *sorted(_LONG_VRS),
    *(b"XX", b"\0\0", b"zz"),
)
_LENGTHS = (
    0,
    1,
    2,
    3,
    7,
    8,
    255,
    65534,
    65535,
    65536,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFE,
    2**32 - 1,
)
_TAGS = (
    *((0x0008, 0x0005), (0x0008, 0x0016), (0x0008, 0x0018), (0x0008, 0x0020), (0x0008, 0x1140)),
    *((0x0010, 0x0010), (0x0010, 0x0020), (0x0018, 0x0060), (0x0020, 0x000D), (0x0020, 0x000E)),
    *((0x0020, 0x0032), (0x0020, 0x0037), (0x0028, 0x0008), (0x0028, 0x0010), (0x0028, 0x0011)),
    *((0x0028, 0x0030), (0x0028, 0x0100), (0x0028, 0x1053), (0x5200, 0x9230), (0x7FE0, 0x0010)),
    *((0x0009, 0x0010), (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD), (0x0002, 0x0010)),
)
_SYNTAXES = (
    *(b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.1.99"),
    *(b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.5", b"1.2.840.10008.1.2.4.70"),
    *(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.80", b"1.2.3", b""),
)
_VALUES = (
    *(b"", b"\0", b"-1", b"0", b"1e400", b"nan", b"inf", b"-0", b"99999999999999999999", b"1,5"),
    *(
        b"1\\2\\3\\4\\5\\6\\7",
        b"\\\\\\\\",
        b"\xff\xfe\xfd",
        b"\x1b$B",
        b"ISO_IR 192",
        b"ISO 2022 IR 87",
    ),
    *(b"00000000", b"20240230", b"M\xfcller^\xd6", b"A" * 300, b"1" * 70, b"%s%n", b"\r\n", b"{}"),
)
_ENDS = (b"\r", b"\n", b"\r\n", b"\n\n", b"\0", b"\xef\xbb\xbf", b'"', b'""', b",", b";", b"\t")


def pydicom_files(pattern: str = "*") -> list[Path]:
    """The test files that pydicom brings along; its own function would also download others."""
    found = Path(pydicom.data.__file__).parent.glob(f"test_files/**/{pattern}")
    return sorted(path for path in found if path.is_file())


class Element(NamedTuple):
    """Place of an explicit little-endian element: start, VR, start and end of its value."""

    start: int
    vr: bytes
    value: int
    end: int


def elements(data: bytes) -> list[Element]:
    """The elements of the top level of an explicit little-endian file, as far as they are whole."""
    at = 132 if data[128:132] == b"DICM" else 0
    found: list[Element] = []
    while at + 8 <= len(data) and len(found) < 400:
        vr = data[at + 4 : at + 6]
        if vr in _LONG_VRS:
            if at + 12 > len(data):
                break
            length, value = struct.unpack_from("<I", data, at + 8)[0], at + 12
        elif vr.isalpha() and vr.isupper():
            length, value = struct.unpack_from("<H", data, at + 6)[0], at + 8
        else:
            break
        if length == 2**32 - 1:
            found.append(Element(at, vr, value, value))
            at = value
            continue
        if value + length > len(data):
            break
        found.append(Element(at, vr, value, value + length))
        at = value + length
    return found


def mutated(data: bytes, rng: random.Random, *, dicom: bool) -> bytes:
    """One to eight mutations of an input, about half of them structure-aware."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 8))):
        kinds = _DICOM if dicom and rng.random() < 0.6 else _BYTES if dicom else _TEXT
        data = rng.choice(kinds)(data, rng)
    return data


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if changed else 0):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 2, 3, 8, 100)) :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 4, 17, 300))) + data[at:]


def _copy_block(data: bytes, rng: random.Random) -> bytes:
    at, to = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
    return data[:to] + data[at : at + rng.choice((4, 16, 64, 512))] + data[to:]


def _word(data: bytes, rng: random.Random) -> bytes:
    if len(data) < 4:
        return data
    at = rng.randrange(len(data) - 3)
    return data[:at] + struct.pack("<I", rng.choice(_LENGTHS)) + data[at + 4 :]


def _chosen(data: bytes, rng: random.Random) -> Element | None:
    found = elements(data)
    return rng.choice(found) if found else None


def _length(data: bytes, rng: random.Random) -> bytes:
    item = _chosen(data, rng)
    if item is None:
        return _word(data, rng)
    length = rng.choice((*_LENGTHS, rng.randrange(70000)))
    if item.vr in _LONG_VRS:
        return data[: item.start + 8] + struct.pack("<I", length) + data[item.start + 12 :]
    return data[: item.start + 6] + struct.pack("<H", length % 65536) + data[item.start + 8 :]


def _vr(data: bytes, rng: random.Random) -> bytes:
    item = _chosen(data, rng)
    if item is None:
        return _flip(data, rng)
    return data[: item.start + 4] + rng.choice(_VRS) + data[item.start + 6 :]


def _tag(data: bytes, rng: random.Random) -> bytes:
    item = _chosen(data, rng)
    if item is None:
        return _flip(data, rng)
    return data[: item.start] + struct.pack("<HH", *rng.choice(_TAGS)) + data[item.start + 4 :]


def _value(data: bytes, rng: random.Random) -> bytes:
    """Another value, with the length that belongs to it."""
    item = _chosen(data, rng)
    if item is None:
        return _insert(data, rng)
    value = rng.choice((*_VALUES, *_SYNTAXES, rng.randbytes(rng.randrange(40))))
    value += b"\0" * (len(value) % 2)
    head = data[item.start : item.start + 6]
    size = (
        struct.pack("<HI", 0, len(value)) if item.vr in _LONG_VRS else struct.pack("<H", len(value))
    )
    return data[: item.start] + head + size + value + data[item.end :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    item = _chosen(data, rng)
    if item is None:
        return _copy_block(data, rng)
    part = data[item.start : item.end][:4096]
    return data[: item.end] + part * rng.choice((1, 1, 2, 50)) + data[item.end :]


def _drop(data: bytes, rng: random.Random) -> bytes:
    item = _chosen(data, rng)
    return _remove(data, rng) if item is None else data[: item.start] + data[item.end :]


def _nest(data: bytes, rng: random.Random) -> bytes:
    """An element inside sequences, of defined or undefined length, some of them not closed."""
    item = _chosen(data, rng)
    if item is None:
        return _insert(data, rng)
    inner = data[item.start : item.end][:4096]
    for _ in range(rng.choice((1, 1, 2, 10, 40, 300))):
        if rng.random() < 0.5:
            inner = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
            inner = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, len(inner)) + inner
        else:
            inner = struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1) + inner
            inner = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 2**32 - 1) + inner
            inner += b"" if rng.random() < 0.1 else _ITEM_END + _SEQUENCE_END
        if len(inner) > 65536:
            break
    return data[: item.start] + inner + data[item.end :]


_ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
_SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _line_part(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((*_ENDS, *_VALUES)) * rng.choice((1, 1, 1, 50)) + data[at:]


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    kind = rng.randrange(3)
    if kind == 0:
        lines[at:at] = [rng.choice(lines)] * rng.choice((1, 2, 45))
    elif kind == 1:
        rng.shuffle(lines)
    else:
        del lines[at]
    return b"\n".join(lines)


_Mutation = Callable[[bytes, random.Random], bytes]
_BYTES: Sequence[_Mutation] = (_flip, _flip, _cut, _remove, _insert, _copy_block, _word)
_DICOM: Sequence[_Mutation] = (_length, _vr, _tag, _value, _value, _repeat, _drop, _nest)
_TEXT: Sequence[_Mutation] = (*_BYTES[:-1], _line_part, _line_part, _lines)
