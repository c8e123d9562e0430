"""Decoding of every transfer syntax, and refusal of streams before decoding."""

from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate, generate_frames

from cac_core.dicom import codestream, pixels
from cac_core.dicom.decoder_worker import EncodedFrame
from cac_core.dicom.limits import ReadLimits
from cac_core.dicom.volume import read_volume
from cac_core.errors import StudyError
from schemas.codes import QualityFlag, StudyReason
from tests.builders.ct_series import thorax, write_ct_series, write_enhanced_ct

R = StudyReason

LOSSLESS = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
]
SIZED = [uid.JPEGLSLossless, uid.JPEG2000Lossless]


def reason_of(paths: list[Path], **kwargs: Any) -> StudyReason:
    with pytest.raises(StudyError) as caught:
        read_volume(paths, **kwargs)
    return caught.value.reason


def first_frame(path: Path) -> bytes:
    return next(generate_frames(dcmread(path).PixelData, number_of_frames=1))


def replace_frame(path: Path, frame: bytes) -> None:
    dataset = dcmread(path)
    dataset.PixelData = encapsulate([frame])
    dataset.save_as(path)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize(
    ("signed", "bits_stored", "intercept"),
    [(False, 16, -1024.0), (True, 16, 0.0), (False, 12, -1024.0)],
)
def test_lossless_syntaxes_keep_every_value(
    tmp_path: Path, syntax: uid.UID, signed: bool, bits_stored: int, intercept: float
) -> None:
    paths = write_ct_series(
        tmp_path,
        n_slices=3,
        syntax=syntax,
        signed=signed,
        bits_stored=bits_stored,
        intercept=intercept,
    )
    volume = read_volume(paths)
    np.testing.assert_array_equal(volume.hu, thorax(3))
    assert volume.acquisition.transfer_syntax_uid == syntax
    assert volume.flags == ()


@pytest.mark.parametrize("syntax", [uid.RLELossless, *SIZED], ids=lambda syntax: syntax.keyword)
def test_compressed_multi_frame(tmp_path: Path, syntax: uid.UID) -> None:
    volume = read_volume([write_enhanced_ct(tmp_path / "e.dcm", n_slices=4, syntax=syntax)])
    np.testing.assert_array_equal(volume.hu, thorax(4))


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [(uid.JPEGLSNearLossless, {"jls_error": 3}), (uid.JPEG2000, {"j2k_cr": [4]})],
)
def test_lossy_syntaxes_are_flagged(
    tmp_path: Path, syntax: uid.UID, encode: dict[str, Any]
) -> None:
    volume = read_volume(write_ct_series(tmp_path, n_slices=3, syntax=syntax, encode=encode))
    assert QualityFlag.LOSSY_COMPRESSION in volume.flags
    assert np.median(np.abs(volume.hu - thorax(3))) < 30


def test_unknown_syntax(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, n_slices=3)
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.7\0"))
    assert reason_of(paths) == R.UNSUPPORTED_TRANSFER_SYNTAX


@pytest.mark.parametrize("syntax", SIZED, ids=lambda syntax: syntax.keyword)
def test_stream_of_another_size_is_refused_before_decoding(
    tmp_path: Path, syntax: uid.UID, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_ct_series(tmp_path, n_slices=3, syntax=syntax)
    dataset = dcmread(paths[1])
    dataset.PixelData = dcmread(
        write_ct_series(tmp_path / "other", n_slices=1, rows=48, syntax=syntax)[0]
    ).PixelData
    dataset.save_as(paths[1])
    decoded: list[object] = []
    decode = pixels.decode_frame

    def watched(layout: EncodedFrame, frame: bytes) -> Any:
        decoded.append(layout)
        return decode(layout, frame)

    monkeypatch.setattr(pixels, "decode_frame", watched)
    assert reason_of(paths) == R.PIXEL_HEADER_MISMATCH
    assert len(decoded) == 1  # the sound first slice only


def test_a_giant_jpeg_2000_size_allocates_nothing(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, n_slices=3, syntax=uid.JPEG2000Lossless)
    for path in paths:
        frame = first_frame(path)
        claim = struct.pack(">2I", 60_000, 60_000)
        replace_frame(path, frame[:8] + claim + frame[16:24] + claim + frame[32:])
    start = time.perf_counter()
    assert reason_of(paths) == R.PIXEL_HEADER_MISMATCH
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("syntax", SIZED, ids=lambda syntax: syntax.keyword)
def test_truncated_stream(tmp_path: Path, syntax: uid.UID) -> None:
    paths = write_ct_series(tmp_path, n_slices=3, syntax=syntax)
    frame = first_frame(paths[1])
    replace_frame(paths[1], frame[: len(frame) // 2])
    assert reason_of(paths) == R.TRUNCATED_PIXEL_DATA


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_file_truncated_in_its_compressed_pixels(
    tmp_path: Path, syntax: uid.UID, share: float
) -> None:
    paths = write_ct_series(tmp_path, syntax=syntax)
    content = paths[5].read_bytes()
    begin = content.index(b"\xe0\x7f\x10\x00")
    paths[5].write_bytes(content[: begin + int((len(content) - begin) * share)])
    assert reason_of(paths) == R.TRUNCATED_PIXEL_DATA


@pytest.mark.parametrize("syntax", [uid.RLELossless, *SIZED], ids=lambda syntax: syntax.keyword)
def test_random_bytes_instead_of_a_stream(tmp_path: Path, syntax: uid.UID) -> None:
    paths = write_ct_series(tmp_path, n_slices=3, syntax=syntax)
    replace_frame(paths[1], b"\x12\x34" * 200)
    assert reason_of(paths) == R.DECODE_FAILED


def test_short_rle_segment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = write_ct_series(tmp_path, n_slices=3, syntax=uid.RLELossless)
    replace_frame(paths[1], first_frame(paths[1])[:-200])
    assert reason_of(paths) == R.DECODE_FAILED
    assert not caplog.records  # the decoder's own message would come with a traceback


def test_frames_and_header_disagree(tmp_path: Path) -> None:
    path = write_enhanced_ct(tmp_path / "e.dcm", n_slices=4, syntax=uid.RLELossless)
    dataset = dcmread(path)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=4))
    dataset.PixelData = encapsulate(frames[:3])
    dataset.save_as(path)
    assert reason_of([path]) == R.TRUNCATED_PIXEL_DATA
    dataset.PixelData = encapsulate([*frames, frames[0]])
    dataset.save_as(path)
    assert reason_of([path]) in (R.PIXEL_HEADER_MISMATCH, R.DECODE_FAILED)


def test_deflate_bomb(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, n_slices=3, syntax=uid.DeflatedExplicitVRLittleEndian)
    content = paths[1].read_bytes()
    meta_end = 132 + 12 + struct.unpack("<I", content[140:144])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(256)) + packer.flush()
    paths[1].write_bytes(content[:meta_end] + bomb)
    start = time.perf_counter()
    assert reason_of(paths, limits=ReadLimits(max_inflated_bytes=2**20)) == R.TOO_LARGE
    assert time.perf_counter() - start < 1


def test_overlay_in_the_high_bits_is_removed(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, n_slices=3, bits_stored=12)
    for path in paths:
        dataset = dcmread(path)
        values = np.frombuffer(dataset.PixelData, "<u2").copy()
        values[::7] |= 0x8000
        dataset.PixelData = values.tobytes()
        dataset.save_as(path)
    assert reason_of(paths) == R.PIXEL_HEADER_MISMATCH
    for path in paths:
        dataset = dcmread(path)
        dataset.add_new(0x60000102, "US", 15)
        dataset.save_as(path)
    np.testing.assert_array_equal(read_volume(paths).hu, thorax(3))


def test_twelve_signed_bits_with_zeros_above(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, n_slices=3, signed=True, intercept=0.0)
    for path in paths:
        dataset = dcmread(path)
        values = np.frombuffer(dataset.PixelData, "<u2") & 0x0FFF
        dataset.PixelData = values.tobytes()
        dataset.BitsStored, dataset.HighBit = 12, 11
        dataset.save_as(path)
    np.testing.assert_array_equal(read_volume(paths).hu, thorax(3))


def test_padding_below_the_stored_bits_does_not_wrap_to_bone(tmp_path: Path) -> None:
    """-3024 taken as 12 bits would be 1072: a calcification made of padding."""
    hu = thorax(3)
    hu[:, :2] = -3024
    paths = write_ct_series(tmp_path, hu=hu, signed=True, intercept=0.0, bits_stored=12)
    assert (read_volume(paths).hu[:, :2] == -1024).all()


def test_code_stream_sizes(tmp_path: Path) -> None:
    for syntax, read in (
        (uid.JPEGLSLossless, codestream.jpeg_size),
        (uid.JPEG2000Lossless, codestream.jpeg2000_size),
    ):
        path = write_ct_series(
            tmp_path / syntax, n_slices=1, rows=40, columns=56, syntax=syntax, bits_stored=12
        )[0]
        assert read(first_frame(path)) == codestream.StreamSize(40, 56, 1, 12)


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xda\x00\x08",
        b"\xff\xd8"
        + 2 * b"\xff\xc3\x00\x0b\x10\x00\x08\x00\x08\x01\x01\x11\x00"
        + b"\xff\xda\x00\x08",
        b"\xff\xd8\xff\xc3\x00\x00\xff\xc3\x00\x00",
        b"\xff\xd8" + b"\xff" * 1000,
    ],
    ids=["empty", "start only", "no frame header", "two frame headers", "zero lengths", "fill"],
)
def test_broken_jpeg_headers(stream: bytes) -> None:
    with pytest.raises(codestream.CodeStreamError):
        codestream.jpeg_size(stream)


def test_jpeg_2000_file_format_and_tile_flood(tmp_path: Path) -> None:
    path = write_ct_series(tmp_path, n_slices=1, rows=40, syntax=uid.JPEG2000Lossless)[0]
    frame = first_frame(path)
    box = struct.pack(">I4s", 8 + len(frame), b"jp2c") + frame
    wrapped = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + box
    assert codestream.jpeg2000_size(wrapped) == codestream.jpeg2000_size(frame)
    tiles = frame[:24] + struct.pack(">2I", 1, 1) + frame[32:]
    with pytest.raises(codestream.CodeStreamError, match="2560 JPEG 2000 tiles"):
        codestream.jpeg2000_size(tiles)


@pytest.mark.parametrize(
    "header",
    [(0,), (1, 64), (2, 64, 64), (2, 64, 10_000), (2, 0, 70), (2, 70, 80), (15,)],
)
def test_broken_rle_headers(header: tuple[int, ...]) -> None:
    frame = struct.pack("<16I", *header, *([0] * (16 - len(header)))) + bytes(100)
    with pytest.raises(codestream.CodeStreamError):
        codestream.check_rle(frame, 2)
    codestream.check_rle(struct.pack("<16I", 2, 64, 100, *([0] * 13)) + bytes(100), 2)
