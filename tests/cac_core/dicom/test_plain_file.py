"""Plain files give the elements that pydicom reads; all other files are left to it."""

from __future__ import annotations

import random
import struct
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian

from cac_core.dicom import datafile, tags
from cac_core.dicom.plain_file import plain_dataset
from tests.builders.ct_series import write_ct_series

_WANTED = frozenset(int(Tag(word)) for word in datafile.READ_KEYWORDS) - {tags.PixelData}


def read(dataset: Dataset, keyword: str) -> object:
    """The value of an element, or the kind of error that reading it raises."""
    try:
        element = dataset.get(Tag(keyword))
        if element is None:
            return None
        pixels = isinstance(element.value, memoryview)
        return element.VR, repr(bytes(element.value) if pixels else element.value)
    except Exception as error:  # noqa: BLE001 - whatever pydicom raises
        return type(error)


def same(content: bytes) -> bool:
    """Whether a file is plain; its elements then equal those of pydicom."""
    with datafile.quiet_pydicom():
        found = plain_dataset(content, _WANTED)
        if found is None:
            return False
        expected = dcmread(BytesIO(content), force=True)
        for keyword in datafile.READ_KEYWORDS:
            assert read(found, keyword) == read(expected, keyword), keyword
            for kind in (datafile.text, datafile.numbers, datafile.holds):
                if keyword != "PixelData":
                    # repr: NaN differs from itself
                    assert repr(kind(found, keyword)) == repr(kind(expected, keyword)), keyword
        assert datafile.has_overlay_in_pixels(found) == datafile.has_overlay_in_pixels(expected)
        assert datafile.transfer_syntax(found) == datafile.transfer_syntax(expected)
    return True


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    header = {"PixelPaddingValue": 24, "SpacingBetweenSlices": 2, "Exposure": None}
    path = write_ct_series(tmp_path_factory.mktemp("plain"), header=header)[0]
    return Path(path).read_bytes()


def test_a_plain_file_is_read(content: bytes) -> None:
    assert same(content)


def test_mutated_files_are_read_alike_or_left_to_pydicom(content: bytes) -> None:
    """Bytes of the header changed, removed and inserted, 1,500 files."""
    draw, n_plain = random.Random(1), 0
    end = content.index(struct.pack("<HH", 0x7FE0, 0x0010)) + 12
    for _ in range(1500):
        changed = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            at, kind = draw.randrange(128, end), draw.randrange(4)
            if kind == 0:
                del changed[at]
            elif kind == 1:
                changed.insert(at, draw.randrange(256))
            else:
                changed[at] = draw.choice((draw.randrange(256), 0, 32, 92, 255))
        n_plain += same(bytes(changed))
    assert n_plain > 150


def test_implicit_encoding_is_left_to_pydicom(content: bytes) -> None:
    dataset, file = dcmread(BytesIO(content)), BytesIO()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(file, implicit_vr=True, little_endian=True)
    assert plain_dataset(file.getvalue(), _WANTED) is None


def test_another_character_set_is_left_to_pydicom(content: bytes) -> None:
    assert plain_dataset(content.replace(b"ORIGINAL", b"\xcf\xd2\xc9\xc7INAL"), _WANTED) is None


def test_truncated_pixels_are_left_to_pydicom(content: bytes) -> None:
    assert plain_dataset(content[:-1000], _WANTED) is None


def test_real_files_are_read_alike(shared_data: Path) -> None:
    found = [same(path.read_bytes()) for path in sorted(shared_data.rglob("*.dcm"))]
    assert sum(found) >= 20
