"""A file whose header cannot be walked still belongs to its study."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from cac_core.dicom.header import WANTED
from cac_core.dicom.header_values import uid_text
from cac_core.dicom.index import index_archive
from cac_core.dicom.limits import HeaderLimits
from cac_core.dicom.part10 import DEFLATED, EXPLICIT_BIG
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import load_rules
from cac_core.dicom.series import series_table
from cac_core.dicom.studies import decide_studies
from cac_core.dicom.uid_recovery import recover_identity
from cac_core.keys import Keyring
from tests.builders.dicom_files import ct_dataset, write_dicom

KEYS = Keyring(b"a secret of the recovery tests")
_DEEP = 5000


def sequence_head(order: str = "<") -> bytes:
    return struct.pack(order + "HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)


def item(order: str = "<") -> bytes:
    return struct.pack(order + "HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)


def deep(order: str = "<") -> bytes:
    """A sequence nested far beyond the limit, and closed in order."""
    closing = struct.pack(order + "HHI", 0xFFFE, 0xE00D, 0)
    closing += struct.pack(order + "HHI", 0xFFFE, 0xE0DD, 0)
    return (sequence_head(order) + item(order)) * _DEEP + closing * _DEEP


def endless(order: str = "<") -> bytes:
    """A sequence whose item is never closed."""
    return sequence_head(order) + item(order)


def with_guilty(path: Path, guilty: bytes, order: str = "<") -> None:
    """Put a sequence before the patient of a file."""
    content = path.read_bytes()
    place = content.index(struct.pack(order + "HH2s", 0x0010, 0x0010, b"PN"))
    path.write_bytes(content[:place] + guilty + content[place:])


@pytest.mark.parametrize("guilty", [deep, endless])
@pytest.mark.parametrize("syntax", [None, EXPLICIT_BIG])
def test_the_study_keeps_its_row(tmp_path: Path, guilty: object, syntax: str | None) -> None:
    order = ">" if syntax else "<"
    path = tmp_path / "slice"
    write_dicom(path, ct_dataset(PatientID="A"), **({"syntax": syntax} if syntax else {}))
    with_guilty(path, guilty(order), order)  # type: ignore[operator]
    found = index_archive([tmp_path], KEYS, workers=1)
    (row,) = found.instances.to_pylist()
    assert row["reason"] in ("header_limits", "truncated", "unreadable_header")
    assert row["study_key"] == KEYS.study_key("1.2.3.4")
    assert row["SeriesInstanceUID"] == KEYS.pseudonym_uid("1.2.3.4.5")
    assert row["patient_key"] == KEYS.patient_key("A")
    rules = load_rules()
    series = select_series(series_table(found.instances), rules)
    (study,) = decide_studies(found.instances, series, rules.digest).to_pylist()
    assert study["reason"] in ("no_ct_series", "no_ctac_series")


def data(path: Path) -> bytes:
    content = path.read_bytes()
    return content[content.index(b"\x10\x00\x10\x00PN") :]


def test_a_study_uid_inside_a_sequence_is_not_used(tmp_path: Path) -> None:
    other = struct.pack("<HH2sH8s", 0x0020, 0x000D, b"UI", 8, b"9.9.9.9\0")
    other += struct.pack("<HH2sH8s", 0x0020, 0x000E, b"UI", 8, b"9.9.9.8\0")
    closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    content = data(write_dicom(tmp_path / "slice", ct_dataset()))
    found = recover_identity(sequence_head() + item() + other + closing + content, WANTED)
    assert uid_text(found, 0x0020000D) == "1.2.3.4"


def test_two_candidates_give_no_result(tmp_path: Path) -> None:
    one = data(write_dicom(tmp_path / "one", ct_dataset()))
    other = data(write_dicom(tmp_path / "two", ct_dataset(StudyInstanceUID="9.9")))
    assert recover_identity(one + other, WANTED) == {}
    assert recover_identity(b"\x20\x00\x0d\x00" * 10_000, WANTED) == {}


def test_limits_hold(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "slice", ct_dataset())
    with_guilty(path, deep() + bytes(200_000))
    found = index_archive([tmp_path], KEYS, workers=1, limits=HeaderLimits(header_bytes=100_000))
    assert found.instances["study_key"].to_pylist() == [None]
    assert found.reasons == {"header_limits": 1}


@pytest.mark.parametrize("broken", ["zlib header", "fault in the pixels"])
def test_a_corrupt_deflate_stream_keeps_its_study(tmp_path: Path, broken: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, 128 * 128 * 2, np.uint8).tobytes()
    data = ct_dataset(PatientID="A", Rows=128, Columns=128, PixelData=noise)
    path = write_dicom(tmp_path / "slice", data, DEFLATED)
    content = path.read_bytes()
    start = 144 + struct.unpack("<I", content[140:144])[0]
    if broken == "zlib header":
        stream = zlib.compress(zlib.decompress(content[start:], -15))
    else:
        # One more block, of the type that RFC 1951 reserves.
        deflater = zlib.compressobj(9, wbits=-15)
        inflated = zlib.decompress(content[start:], -15)
        stream = deflater.compress(inflated[:4000]) + deflater.flush(zlib.Z_FULL_FLUSH) + b"\xff"
    path.write_bytes(content[:start] + stream)
    found = index_archive([tmp_path], KEYS, workers=1)
    (row,) = found.instances.to_pylist()
    assert row["reason"] == "unreadable_header"
    assert row["study_key"] == KEYS.study_key("1.2.3.4")
    assert row["patient_key"] == KEYS.patient_key("A")
