"""Reads the image size from the headers of compressed frames, without decoding them.

Decoders trust the code stream, not the DICOM header: a stream of 175 KB that declares 60,000 x
60,000 pixels allocates gigabytes or crashes the process. So its size is compared with Rows x
Columns first.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

_SOI = b"\xff\xd8"
_END_OF_STREAM = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000
_START_OF_SCAN = 0xDA
#: SOF markers of ITU-T T.81 table B.1 (without DHT, JPG, DAC) and SOF55 of T.87.
_START_OF_FRAME = (*range(0xC0, 0xC4), 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7)
_STANDALONE = (0x01, *range(0xD0, 0xD8))

_J2K_START = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
#: CT has one tile per slice, pathology a few hundred; more slow the decoders down.
_MAX_TILES = 1024

_RLE_HEADER_BYTES = 64


class CodeStreamError(ValueError):
    """The bytes are not a code stream of the expected kind."""


@dataclass(frozen=True, slots=True)
class StreamSize:
    """Rows, columns, components and bits per component that a code stream declares."""

    rows: int
    columns: int
    components: int
    precision: int


def ends_properly(frame: bytes) -> bool:
    """Whether a JPEG, JPEG-LS or JPEG 2000 stream has its end marker, apart from padding."""
    return _END_OF_STREAM in frame[-16:]


def jpeg_size(frame: bytes) -> StreamSize:
    """Read the size in the frame header (SOF) of a JPEG or JPEG-LS stream.

    ITU-T T.81 B.2.2 and T.87 C.2.2.

    Raises
    ------
    CodeStreamError
        No frame header before the first scan, or more than one.
    """
    if frame[:2] != _SOI:
        raise CodeStreamError("no JPEG start marker")
    found: list[StreamSize] = []
    at = 2
    while at + 4 <= len(frame):
        if frame[at] != 0xFF:
            raise CodeStreamError("JPEG marker expected")
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _STANDALONE:
            at += 2
            continue
        if marker == _START_OF_SCAN:
            break
        length = int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker in _START_OF_FRAME:
            found.append(_frame_header(frame[at + 4 : at + 2 + length]))
        at += 2 + max(length, 2)
    if len(found) != 1:
        raise CodeStreamError(f"{len(found)} JPEG frame headers")
    return found[0]


def jpeg2000_size(frame: bytes) -> StreamSize:
    """Read the size in the SIZ segment of a JPEG 2000 stream, bare or in a JP2 file.

    ITU-T T.800 A.5.1.

    Raises
    ------
    CodeStreamError
        No SIZ segment, subsampled components, or more than 1024 tiles.
    """
    start = _jp2_code_stream(frame) if frame.startswith(_JP2_SIGNATURE) else 0
    siz = frame[start : start + 45]
    if not siz.startswith(_J2K_START) or len(siz) < 45:
        raise CodeStreamError("no JPEG 2000 size segment")
    words = [int.from_bytes(siz[at : at + 4], "big") for at in range(8, 40, 4)]
    x_end, y_end, x_start, y_start, tile_x, tile_y, tile_x0, tile_y0 = words
    if not (tile_x and tile_y) or siz[43] != 1 or siz[44] != 1:
        raise CodeStreamError("tiles or subsampling of JPEG 2000 not usable")
    tiles = -(-(x_end - tile_x0) // tile_x) * -(-(y_end - tile_y0) // tile_y)
    if tiles > _MAX_TILES:
        raise CodeStreamError(f"{tiles} JPEG 2000 tiles")
    components = int.from_bytes(siz[40:42], "big")
    return StreamSize(y_end - y_start, x_end - x_start, components, (siz[42] & 0x7F) + 1)


def check_rle(frame: bytes, n_segments: int) -> None:
    """Check the header of an RLE frame (PS3.5 G.5): segment count, and offsets that ascend.

    Raises
    ------
    CodeStreamError
        Wrong number of segments for the pixel layout, or offsets outside the frame.
    """
    if len(frame) <= _RLE_HEADER_BYTES:
        raise CodeStreamError("RLE frame shorter than its header")
    stated = int.from_bytes(frame[:4], "little")
    if stated != n_segments:
        raise CodeStreamError(f"{stated} RLE segments")
    offsets = [int.from_bytes(frame[4 * k : 4 * k + 4], "little") for k in range(1, stated + 1)]
    bounds = [*offsets, len(frame)]
    ascending = all(low < high for low, high in pairwise(bounds))
    if offsets[0] != _RLE_HEADER_BYTES or not ascending:
        raise CodeStreamError("RLE segment offsets out of order")


def _frame_header(body: bytes) -> StreamSize:
    if len(body) < 6:
        raise CodeStreamError("JPEG frame header cut short")
    return StreamSize(
        int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), body[5], body[0]
    )


def _jp2_code_stream(frame: bytes) -> int:
    """Find the code stream among the boxes of a JP2 file (ITU-T T.800 I.4)."""
    at = 0
    while at + 8 <= len(frame):
        length = int.from_bytes(frame[at : at + 4], "big")
        header = 8
        if length == 1:
            length, header = int.from_bytes(frame[at + 8 : at + 16], "big"), 16
        if frame[at + 4 : at + 8] == b"jp2c":
            return at + header
        if length < header:
            break
        at += length
    raise CodeStreamError("no code stream in the JP2 file")
