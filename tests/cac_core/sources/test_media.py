"""Zip and tar archives and media with a DICOMDIR: the same rows as the folder that they hold."""

from __future__ import annotations

import gc
import io
import os
import re
import struct
import tarfile
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from pydicom import dcmread
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid

from cac_core.dicom.index import ArchiveIndex, index_archive
from cac_core.errors import UsageError
from cac_core.keys import Keyring
from cac_core.sources.dicomdir import listed_files
from cac_core.sources.listing import Listing
from cac_core.sources.packed import UnpackLimits
from tests.builders.dicom_files import write_slices

KEYS = Keyring(b"a secret of the tests of media")
#: Columns that depend on where a file is.
_OF_A_PLACE = ["path_key", "mtime_ns"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    write_slices(root / "a", 3, SeriesInstanceUID="1.1", StudyInstanceUID="1")
    write_slices(root / "b" / "deep", 2, SeriesInstanceUID="1.2", StudyInstanceUID="1")
    (root / "notes.txt").write_text("nothing to see")
    return root


def index(tmp_path: Path, *roots: Path, limits: UnpackLimits | None = None) -> ArchiveIndex:
    listing = Listing(tmp_path / "cache" / "unpacked", limits or UnpackLimits())
    return index_archive(roots, KEYS, scan=listing)


def content(found: ArchiveIndex) -> list[dict[str, object]]:
    table: pa.Table = found.instances.drop_columns(_OF_A_PLACE)
    return sorted(table.to_pylist(), key=str)


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return target


def tarred(folder: Path, target: Path, mode: str) -> Path:
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
        archive.add(folder, arcname=".")
    return target


def test_archives_give_the_rows_of_their_folder(folder: Path, tmp_path: Path) -> None:
    expected = content(index(tmp_path, folder))
    assert len(expected) == 6
    archives = [
        zipped(folder, tmp_path / "x.zip"),
        tarred(folder, tmp_path / "x.tar", "w"),
        tarred(folder, tmp_path / "x.tar.gz", "w:gz"),
        tarred(folder, tmp_path / "X.TXZ", "w:xz"),
    ]
    for archive in archives:
        assert content(index(tmp_path, archive)) == expected, archive.suffix


def test_archives_within_folders_are_read_and_unpacked_once(folder: Path, tmp_path: Path) -> None:
    expected = content(index(tmp_path, folder))
    outer = tmp_path / "outer"
    outer.mkdir()
    archive = zipped(folder, outer / "study.zip")
    first = index(tmp_path, outer)
    assert content(first) == expected
    listing = Listing(tmp_path / "cache" / "unpacked", say=pytest.fail)
    again = index_archive([outer], KEYS, previous=first.instances, scan=listing)
    assert (again.n_opened, again.instances.equals(first.instances)) == (0, True)
    archive.unlink()
    assert index(tmp_path, outer).n_files == 0
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_a_changed_archive_is_unpacked_again(folder: Path, tmp_path: Path) -> None:
    archive = zipped(folder, tmp_path / "x.zip")
    first = index(tmp_path, archive)
    write_slices(folder / "c", 2, SeriesInstanceUID="9.1", StudyInstanceUID="9")
    zipped(folder, archive)
    os.utime(archive, (1, 1))
    listing = Listing(tmp_path / "cache" / "unpacked")
    second = index_archive([archive], KEYS, previous=first.instances, scan=listing)
    assert (second.n_files, second.n_opened) == (8, 2)


def test_no_name_of_a_member_decides_where_it_goes(folder: Path, tmp_path: Path) -> None:
    image = next((folder / "a").iterdir()).read_bytes()
    hostile = ["../../evil.dcm", "/etc/evil.dcm", "a\\..\\..\\evil.dcm", "C:\\evil.dcm"]
    bad = tmp_path / "bad.zip"
    with zipfile.ZipFile(bad, "w") as archive:
        for name in (*hostile, "good.dcm"):
            archive.writestr(name, image)
    links = tmp_path / "links.tar"
    with tarfile.open(links, "w") as tar:
        for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        for name in ("../evil.dcm", "good.dcm"):
            member = tarfile.TarInfo(name)
            member.size = len(image)
            tar.addfile(member, io.BytesIO(image))
    cache = tmp_path / "cache"
    assert index(tmp_path, bad).reasons == {"outside_medium": 4}
    assert index(tmp_path, links).reasons == {"outside_medium": 3}
    written = [path for path in cache.rglob("*") if path.is_file()]
    assert not [path for path in tmp_path.rglob("*evil*") if path.is_file()]
    assert all(path.resolve().is_relative_to(cache) and not path.is_symlink() for path in written)
    assert cache.joinpath("unpacked").stat().st_mode & 0o077 == 0
    assert not any(b"evil" in path.read_bytes() for path in written)


def test_damaged_encrypted_and_exploding_archives_are_rows(folder: Path, tmp_path: Path) -> None:
    archive = zipped(folder, tmp_path / "x.zip")
    data = archive.read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    encrypted = bytearray(data)
    for match in re.finditer(b"PK\x01\x02", data):
        struct.pack_into("<H", encrypted, match.start() + 8, 1)  # the flag of each entry
    (tmp_path / "locked.zip").write_bytes(encrypted)
    tar = tarred(folder, tmp_path / "whole.tgz", "w:gz").read_bytes()
    (tmp_path / "cut.tgz").write_bytes(tar[: len(tar) // 2])
    for name in ("cut.zip", "locked.zip", "cut.tgz"):
        assert index(tmp_path, tmp_path / name).reasons["unreadable_medium"] == 1, name
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("zeros", b"\0" * (64 * 2**20))
        out.writestr("more", b"\0" * (200 * 2**20))
    found = index(tmp_path, bomb)
    assert found.reasons == {"medium_limits": 1, "not_dicom": 1}
    size = sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*") if p.is_file())
    assert size <= 64 * 2**20 + 10**6
    few = index(tmp_path, archive, limits=UnpackLimits(members=2))
    assert (few.n_files, few.reasons) == (3, {"medium_limits": 1})


def fileset(folder: Path, target: Path) -> Path:
    files = FileSet()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".txt":
            image = dcmread(path)
            image.PatientName, image.StudyID = "X^Y", "1"
            image.StudyTime = "101010"
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            files.add(image)
    files.write(target)
    with warnings.catch_warnings():  # pydicom leaves a temporary folder to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        del files
        gc.collect()
    return target / "DICOMDIR"


def test_a_dicomdir_gives_the_files_that_it_lists(folder: Path, tmp_path: Path) -> None:
    directory = fileset(folder, tmp_path / "medium")
    (directory.parent / "STRAY.DCM").write_bytes(next((folder / "a").iterdir()).read_bytes())
    found = index(tmp_path, directory)
    assert (found.n_files, found.reasons) == (5, {})
    everything = index(tmp_path, directory.parent)
    assert (everything.n_files, everything.reasons["dicomdir"]) == (7, 1)
    assert index(tmp_path, directory, directory.parent).n_files == 7
    next(path for path in directory.parent.rglob("*") if path.name.startswith("IM")).unlink()
    assert index(tmp_path, directory).reasons == {"vanished": 1}
    with pytest.raises(UsageError, match="cannot be read"):
        index(tmp_path, tmp_path / "nowhere" / "DICOMDIR")


def test_a_mount_may_show_names_in_lower_case(folder: Path, tmp_path: Path) -> None:
    directory = fileset(folder, tmp_path / "medium")
    for path in sorted(directory.parent.rglob("*"), key=lambda p: -len(p.parts)):
        path.rename(path.with_name(path.name.lower()))
    assert index(tmp_path, directory.with_name("dicomdir")).reasons == {}


def _entry(*components: str) -> bytes:
    value = "\\".join(components).encode()
    value += b" " * (len(value) % 2)
    return b"\x04\x00\x00\x15CS" + struct.pack("<H", len(value)) + value


def test_a_dicomdir_cannot_lead_out_of_its_medium(folder: Path, tmp_path: Path) -> None:
    medium = tmp_path / "medium"
    medium.mkdir()
    (tmp_path / "outside.dcm").write_bytes(next((folder / "a").iterdir()).read_bytes())
    (medium / "LINK").symlink_to(tmp_path / "outside.dcm")
    (medium / "DIR").symlink_to(tmp_path)
    (medium / "GOOD").write_bytes((tmp_path / "outside.dcm").read_bytes())
    head = b"\0" * 128 + b"DICM"
    hostile = [("..", "outside.dcm"), ("LINK",), ("DIR", "outside.dcm"), ("", "etc", "passwd")]
    hostile += [("a/../../outside.dcm",), (".", "GOOD")]
    entries = b"".join(_entry(*names) for names in [*hostile, ("GOOD",), ("GOOD",)])
    (medium / "DICOMDIR").write_bytes(head + entries)
    reasons = Counter(item.reason for item in listed_files(str(medium / "DICOMDIR")))
    assert reasons == {"outside_medium": 6, None: 1}
    found = index(tmp_path, medium / "DICOMDIR")
    assert (found.n_opened, found.reasons) == (1, {"outside_medium": 6})
