"""Stored pixel values of a frame: limits, layout checks, and decoding in a process of its own.

Sizes are checked before decoding; any exception of a decoder becomes `decode_failed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import UID

from cac_core.dicom import codestream, datafile
from cac_core.dicom.codestream import CodeStreamError, StreamSize
from cac_core.dicom.decoder import decode_frame
from cac_core.dicom.decoder_worker import PLUGINS, EncodedFrame
from cac_core.dicom.limits import ReadLimits
from cac_core.errors import StudyError
from schemas.codes import StudyReason

#: Stored values: as read, or wider where high bits are removed.
Stored = NDArray[np.int16] | NDArray[np.uint16] | NDArray[np.int32]

_NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
)
_JPEG_2000 = (
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
)
#: Syntaxes that lose information, or may: the stream alone does not tell.
LOSSY_SYNTAXES = (
    uid.JPEGBaseline8Bit,
    uid.JPEGLSNearLossless,
    uid.JPEG2000,
    uid.HTJ2K,
)


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """Storage of the pixels of one file: the Image Pixel module (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    n_frames: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    syntax: UID
    overlay_in_pixels: bool

    @property
    def n_pixels(self) -> int:
        """Pixels of all frames."""
        return self.rows * self.columns * self.n_frames

    @property
    def frame_bytes(self) -> int:
        """Uncompressed size of one frame in bytes."""
        return self.rows * self.columns * self.bits_allocated // 8


def pixel_layout(dataset: Dataset, limits: ReadLimits) -> PixelLayout:
    """Return the pixel layout of a data set.

    Parameters
    ----------
    dataset : one file.
    limits : largest matrix, number of frames and number of pixels.

    Raises
    ------
    StudyError
        `unreadable_file` (not an image), `truncated_pixel_data` (no pixel data: pydicom omits
        truncated ones), `too_large`, `not_hounsfield` (colour, inverted), `pixel_header_mismatch`,
        `unsupported_transfer_syntax`.
    """
    if not (datafile.holds(dataset, "Rows") and datafile.holds(dataset, "Columns")):
        raise StudyError(StudyReason.UNREADABLE_FILE, "not an image")
    rows = datafile.integer(dataset, "Rows") or 0
    columns = datafile.integer(dataset, "Columns") or 0
    n_frames = 1
    if datafile.holds(dataset, "NumberOfFrames"):
        n_frames = datafile.integer(dataset, "NumberOfFrames") or 0
    _check_size(rows, columns, n_frames, limits)
    syntax = datafile.transfer_syntax(dataset)
    if syntax not in _NATIVE and syntax not in PLUGINS:
        raise StudyError(StudyReason.UNSUPPORTED_TRANSFER_SYNTAX)
    _check_grey_scale(dataset)
    allocated, stored = _bits(dataset)
    if not datafile.holds(dataset, "PixelData"):
        raise StudyError(StudyReason.TRUNCATED_PIXEL_DATA, "no pixel data")
    representation = datafile.integer(dataset, "PixelRepresentation")
    if representation not in (None, 0, 1):
        detail = f"PixelRepresentation {representation}"
        raise StudyError(StudyReason.PIXEL_HEADER_MISMATCH, detail)
    signed = representation == 1
    return PixelLayout(
        rows,
        columns,
        n_frames,
        allocated,
        stored,
        signed,
        syntax,
        datafile.has_overlay_in_pixels(dataset),
    )


def _bits(dataset: Dataset) -> tuple[int, int]:
    """Return BitsAllocated and BitsStored."""
    allocated = datafile.integer(dataset, "BitsAllocated") or 0
    stored = datafile.integer(dataset, "BitsStored") or allocated
    high_bit = datafile.integer(dataset, "HighBit")
    invalid = not 1 < stored <= allocated or high_bit not in (None, stored - 1)
    if allocated not in (8, 16) or invalid:
        detail = f"{allocated} bits allocated, {stored} stored, high bit {high_bit}"
        raise StudyError(StudyReason.PIXEL_HEADER_MISMATCH, detail)
    return allocated, stored


def _check_size(rows: int, columns: int, n_frames: int, limits: ReadLimits) -> None:
    if rows < 1 or columns < 1 or n_frames < 1:
        detail = f"{n_frames} frames of {rows} x {columns}"
        raise StudyError(StudyReason.PIXEL_HEADER_MISMATCH, detail)
    too_wide = rows > limits.max_rows or columns > limits.max_columns
    if too_wide or n_frames > limits.max_slices or rows * columns * n_frames > limits.max_pixels:
        detail = (
            f"{n_frames} frames of {rows} x {columns}; allowed are {limits.max_slices} of "
            f"{limits.max_rows} x {limits.max_columns}, {limits.max_pixels} pixels in all"
        )
        raise StudyError(StudyReason.TOO_LARGE, detail)


def _check_grey_scale(dataset: Dataset) -> None:
    if (datafile.integer(dataset, "SamplesPerPixel") or 1) != 1:
        raise StudyError(StudyReason.NOT_HOUNSFIELD, "colour pixels")
    photometric = datafile.text(dataset, "PhotometricInterpretation")
    if photometric != "MONOCHROME2":
        raise StudyError(StudyReason.NOT_HOUNSFIELD, "PhotometricInterpretation not MONOCHROME2")


class FrameReader:
    """Returns the stored values of any frame of one data set.

    Parameters
    ----------
    dataset : with PixelData.
    layout : from `pixel_layout`.

    Raises
    ------
    StudyError
        `truncated_pixel_data`, `pixel_header_mismatch`, `decode_failed` or `decoder_died`.
    """

    def __init__(self, dataset: Dataset, layout: PixelLayout) -> None:
        self.layout = layout
        try:
            data, encapsulated = datafile.pixel_data(dataset)
        except datafile.PARSE_ERRORS as error:
            raise StudyError(StudyReason.DECODE_FAILED, type(error).__name__) from None
        if not isinstance(data, bytes | bytearray | memoryview):
            raise StudyError(StudyReason.DECODE_FAILED, "pixel data without bytes")
        if layout.syntax in _NATIVE:
            if encapsulated:
                detail = "encapsulated pixels in an uncompressed syntax"
                raise StudyError(StudyReason.PIXEL_HEADER_MISMATCH, detail)
            self._native = _native_frames(data, layout)
            self._frames: list[bytes] = []
        else:
            self._frames = _encapsulated_frames(bytes(data), layout)

    def stored(self, index: int) -> Stored:
        """Return the stored values of a frame, shape (rows, columns)."""
        values = self._decode(self._frames[index]) if self._frames else self._native[index]
        return _within_bits_stored(values, self.layout)

    def _decode(self, frame: bytes) -> NDArray[Any]:
        layout = self.layout
        _check_code_stream(frame, layout)
        array = decode_frame(
            EncodedFrame(
                str(layout.syntax),
                layout.rows,
                layout.columns,
                layout.bits_allocated,
                layout.bits_stored,
                layout.signed,
            ),
            frame,
        )
        if array.shape != (layout.rows, layout.columns):
            raise StudyError(StudyReason.PIXEL_HEADER_MISMATCH, f"decoded to {array.shape}")
        return array


def _native_frames(data: bytes | bytearray | memoryview, layout: PixelLayout) -> NDArray[Any]:
    """Return a view of uncompressed pixels, shape (frames, rows, columns)."""
    expected = layout.frame_bytes * layout.n_frames
    if len(data) < expected:
        detail = f"{len(data)} bytes of {expected}"
        raise StudyError(StudyReason.TRUNCATED_PIXEL_DATA, detail)
    # A few bytes of padding are common; an extra row means that the header is wrong.
    if len(data) - expected >= max(layout.columns * layout.bits_allocated // 8, 2):
        detail = f"{len(data)} bytes, {expected} expected"
        raise StudyError(StudyReason.PIXEL_HEADER_MISMATCH, detail)
    order = ">" if layout.syntax == uid.ExplicitVRBigEndian else "<"
    kind = f"{order}{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}"
    shape = (layout.n_frames, layout.rows, layout.columns)
    pixels = np.frombuffer(data, kind, count=layout.n_pixels).reshape(shape)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _encapsulated_frames(data: bytes, layout: PixelLayout) -> list[bytes]:
    try:
        frames = list(generate_frames(data, number_of_frames=layout.n_frames))
    except datafile.PARSE_ERRORS as error:
        detail = f"encapsulation broken ({type(error).__name__})"
        raise StudyError(StudyReason.DECODE_FAILED, detail) from None
    if len(frames) < layout.n_frames:
        detail = f"{len(frames)} frames of {layout.n_frames}"
        raise StudyError(StudyReason.TRUNCATED_PIXEL_DATA, detail)
    if len(frames) > layout.n_frames:
        detail = f"{len(frames)} frames, {layout.n_frames} expected"
        raise StudyError(StudyReason.PIXEL_HEADER_MISMATCH, detail)
    return frames


def _check_code_stream(frame: bytes, layout: PixelLayout) -> None:
    """Refuse a truncated frame, or one whose size differs from the DICOM header."""
    try:
        if layout.syntax == uid.RLELossless:
            codestream.check_rle(frame, layout.bits_allocated // 8)
            return
        is_2000 = layout.syntax in _JPEG_2000
        size = codestream.jpeg2000_size(frame) if is_2000 else codestream.jpeg_size(frame)
    except CodeStreamError as error:
        raise StudyError(StudyReason.DECODE_FAILED, str(error)) from None
    precision = min(size.precision, layout.bits_allocated)
    if size != StreamSize(layout.rows, layout.columns, 1, precision):
        detail = (
            f"code stream of {size.rows} x {size.columns}, {size.components} component(s) of "
            f"{size.precision} bits; header {layout.rows} x {layout.columns}, 1 of "
            f"{layout.bits_allocated}"
        )
        raise StudyError(StudyReason.PIXEL_HEADER_MISMATCH, detail)
    if not codestream.ends_properly(frame):
        raise StudyError(StudyReason.TRUNCATED_PIXEL_DATA, "code stream without its end marker")


def _within_bits_stored(values: NDArray[Any], layout: PixelLayout) -> Stored:
    """Return values according to BitsStored; unused high bits may hold zeros or an overlay.

    Values below the signed range are kept: some writers use them as padding.
    """
    pixels: NDArray[np.int16] | NDArray[np.uint16]
    if layout.signed:
        pixels = values.astype(np.int16, copy=False)
    else:
        pixels = values.astype(np.uint16, copy=False)
    bits = layout.bits_stored
    if bits == layout.bits_allocated:
        return pixels
    low, high = int(pixels.min()), int(pixels.max())
    top = 2 ** (bits - 1) - 1 if layout.signed else 2**bits - 1
    if high <= top:
        return pixels
    zero_filled = layout.signed and low >= 0 and high < 2**bits
    if not (zero_filled or layout.overlay_in_pixels):
        raise StudyError(StudyReason.PIXEL_HEADER_MISMATCH, f"values above {bits} bits stored")
    wide: NDArray[np.int32] = pixels.astype(np.int32)
    wide &= np.int32(2**bits - 1)
    if layout.signed:
        wide[wide > top] -= 2**bits
    return wide
