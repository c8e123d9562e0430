"""Fuzzing of what takes the bytes of a PACS, a medium or an archive of files.

Each must deliver, or raise the one error of its own; whatever it is sent, it writes into its own
folder only and reads nothing beside the medium.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydicom import dcmread

from cac_core.dicom import datafile
from cac_core.dicom.files import ScannedFile
from cac_core.dicom.selection_rules import load_rules, text_policy
from cac_core.errors import CacError
from cac_core.keys import Keyring
from cac_core.sources.collect import Collector
from cac_core.sources.dicom_json import found_study, source_header
from cac_core.sources.dicomdir import listed_files
from cac_core.sources.incoming import IncomingSeries, identity_of
from cac_core.sources.known import KnownStudies
from cac_core.sources.multipart import boundary_of, parts
from cac_core.sources.packed import UnpackLimits, with_members
from cac_core.sources.source import FoundStudy, SourceError, SourceHeader, StudyQuery
from cac_core.sources.static_web import StaticWeb
from tests.builders.dicom_files import ct_dataset, write_dicom
from tests.fuzz.mutations import mutated, pydicom_files
from tests.fuzz.network_mutations import (
    built_message,
    chunks_of,
    mutated_item,
    mutated_message,
)

_BOUNDARIES = (b"x", b"a-b", b"-", b"0f" * 16, b"the boundary", b"=_1.2=3")
_MOST_HEADER = 16 * 1024
_STUDY, _SERIES, _INSTANCE = "1.2.0", "1.2.0.1", "1.2.0.1.1"
_ANY = StudyQuery()
_SMALL = UnpackLimits(members=50, member_bytes=2**20, total_bytes=2**22)


class Receivers:
    """The targets and their seeds.

    Parameters
    ----------
    folder : a working folder, best in memory.
    keyring : secret of the run.
    planted : elements that must not survive in a row.
    """

    def __init__(self, folder: Path, keyring: Keyring, planted: dict[str, str]) -> None:
        self.keyring = keyring
        self.texts = text_policy(load_rules())
        one = ct_dataset(
            StudyInstanceUID=_STUDY,
            SeriesInstanceUID=_SERIES,
            SOPInstanceUID=_INSTANCE,
            StudyDate="20240510",
            **planted,
        )
        self.instances = [
            write_dicom(folder / f"sent-{number}", one, syntax).read_bytes()
            for number, syntax in enumerate(("1.2.840.10008.1.2.1", "1.2.840.10008.1.2"))
        ]
        self.items = [_as_json(one), *_items_of_pydicom()]
        self.pixels = bytes(one.PixelData)
        self.medium = _Medium(folder / "medium")
        self.packed = _Packed(folder / "packed", self.instances)
        self.inbox, self.web, self.night = (folder / n for n in ("inbox", "web", "night"))
        self.inbox.mkdir()

    def multipart(self, rng: random.Random) -> None:
        """Split a message: the same parts however the network cuts it."""
        boundary = rng.choice(_BOUNDARIES)
        sizes = [rng.choice((0, 1, 7, 300)) for _ in range(rng.choice((0, 1, 2, 5, 40)))]
        bodies = [rng.randbytes(size) + rng.choice((b"", b"\r\n", b"\r\n--")) for size in sizes]
        message = built_message(bodies, boundary, rng)
        as_built = rng.random() < 0.1 and not any(boundary in body for body in bodies)
        if not as_built:
            message = mutated_message(message, boundary, rng)
        most = rng.choice((100, 10**7))
        found, fault = _outcome(parts(chunks_of(message, rng), boundary, most))
        if most == 100:
            assert all(len(body) <= most + 2 * _MOST_HEADER + 2**20 for body in found)
            return
        assert (found, fault) == _outcome(parts([message], boundary, most))
        assert not as_built or not bodies or (found, fault) == (bodies, None)
        kind = mutated(b'multipart/related; boundary="' + boundary + b'"', rng, dicom=False)
        named = boundary_of(kind.decode("latin-1"))
        assert named is None or 0 < len(named) <= 200

    def metadata(self, rng: random.Random) -> list[object]:
        """The rows of headers in DICOM JSON, whose values must not name the patient."""
        source = _Answers(self._metadata(rng))
        if rng.random() < 0.01:  # the way of a whole night, which is slower
            shutil.rmtree(self.night, ignore_errors=True)
            known = KnownStudies(self.night / "known.sqlite")
            with contextlib.suppress(SourceError):
                collector = Collector(source, known, self.keyring, self.texts, 1)
                return [collector.read(_ANY, None).rows.to_pylist()]
            return []
        with contextlib.suppress(SourceError):
            list(source.studies(_ANY))
            collector = Collector(source, KnownStudies(self.night), self.keyring, self.texts)
            return list(collector._rows(source.headers(_STUDY)))
        return []

    def _metadata(self, rng: random.Random) -> list[dict[str, Any]]:
        """A response as it is decoded; empty where it is no JSON."""
        items = [mutated_item(rng.choice(self.items), rng) for _ in range(rng.choice((1, 1, 3)))]
        if rng.random() < 0.3:
            data = mutated(json.dumps(items).encode(), rng, dicom=False)
            try:
                found = json.loads(data)
            except (ValueError, RecursionError):
                return []
            items = (
                [item for item in found if isinstance(item, dict)]
                if isinstance(found, list)
                else []
            )
        return items

    def identity(self, rng: random.Random) -> None:
        """An object that a peer sends to the storage SCP, up to the file that is written."""
        data = mutated(rng.choice(self.instances), rng, dicom=True)
        for path in self.inbox.iterdir():  # of a run that was ended in between
            path.unlink()
        with contextlib.suppress(SourceError):
            assert all(isinstance(uid, str) for uid in identity_of(data))
        expected = frozenset((self.keyring.pseudonym_uid(_INSTANCE),))
        series = IncomingSeries(self.inbox, (_STUDY, _SERIES), expected, self.keyring.pseudonym_uid)
        with contextlib.suppress(SourceError):
            series.add(data)
            series.require_complete()
        for path in self.inbox.iterdir():
            assert path.suffix == ".dcm" and len(path.stem) == 32 and path.read_bytes() == data

    def dicomdir(self, rng: random.Random) -> None:
        """The files that a directory lists: none beside its medium."""
        for file in self.medium.listed(rng):
            assert Path(file.path).is_relative_to(self.medium.home)
            if file.reason is None:
                assert Path(file.path).resolve().is_relative_to(self.medium.home)

    def static(self, rng: random.Random) -> None:
        """A folder in the layout of DICOMweb: headers, and instances put together."""
        shutil.rmtree(self.web, ignore_errors=True)
        home = self.web / "studies" / _STUDY / "series" / _SERIES
        item, pixels = dict(self.items[0]), self.pixels
        if rng.random() < 0.7:
            item = mutated_item(item, rng)
        if rng.random() < 0.6:
            boundary = rng.choice(_BOUNDARIES)
            message = built_message([pixels], boundary, rng)
            pixels = mutated_message(message, boundary, rng)
        metadata = json.dumps([item]).encode()
        if rng.random() < 0.2:
            metadata = mutated(metadata, rng, dicom=False)
        _write(home / "metadata", metadata, rng)
        _write(home / "instances" / _INSTANCE / "frames" / "1", pixels, rng)
        source, taken = StaticWeb("dicomweb+file:///x", self.web, 2**22), list[bytes]()
        for call in (
            lambda: list(source.studies(_ANY)),
            lambda: source.headers(_STUDY),
            lambda: source.pull(_STUDY, _SERIES, taken.append),
        ):
            with contextlib.suppress(SourceError):
                call()
        assert all(len(content) < 2**24 for content in taken)

    def archive(self, rng: random.Random) -> None:
        """A zip or tar archive: members lie below the folder of members, and nowhere else."""
        self.packed.unpack(rng)


class _Answers:
    """A PACS that answers with given items (`cac_core.sources.source.Source`)."""

    place = "dicomweb+http://127.0.0.1:1/x"

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self._items = items

    def check(self) -> str:
        return ""

    def studies(self, query: StudyQuery) -> Iterator[FoundStudy]:
        for item in self._items:
            yield found_study(_STUDY, item)

    def headers(self, study_uid: str) -> list[SourceHeader]:
        return [source_header(item) for item in self._items]

    def pull(self, study_uid: str, series_uid: str, add: object) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


class _Medium:
    """A medium with three images, and a link that leads out of it."""

    def __init__(self, home: Path) -> None:
        (home / "A").mkdir(parents=True)
        for name in ("A/IM1", "A/IM2", "im3"):
            (home / name).write_bytes(b"an image")
        (home.parent / "secret").write_bytes(b"beside the medium")
        (home / "OUT").symlink_to(home.parent)
        self.home = home.resolve()
        self.seeds = [path.read_bytes()[:65536] for path in pydicom_files("DICOMDIR*")]
        ids = ("A\\IM1", "A\\IM2", "IM3", "OUT\\SECRET", "..\\SECRET", "\\\\", "/etc/passwd", "A")
        self.seeds += [b"\0" * 128 + b"DICM" + b"".join(map(_file_id, ids))] * 8

    def listed(self, rng: random.Random) -> list[ScannedFile]:
        """The files of a mutated directory."""
        path = self.home / "DICOMDIR"
        path.write_bytes(mutated(rng.choice(self.seeds), rng, dicom=True))
        return listed_files(str(path))


def _file_id(text: str) -> bytes:
    value = text.encode() + b" " * (len(text) % 2)
    return b"\x04\x00\x00\x15CS" + len(value).to_bytes(2, "little") + value


class _Packed:
    """Archives of images, and the folder that they are unpacked into."""

    def __init__(self, home: Path, contents: list[bytes]) -> None:
        home.mkdir()
        self.home, self.into, content = home, home / "members", contents[0][:3000]
        self.seeds: list[tuple[str, bytes]] = []
        names = ("a.dcm", "b/c.dcm", "../out.dcm", "/tmp/cac-fuzz-out.dcm", "C:\\x.dcm", "é/ü")
        for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
            made = io.BytesIO()
            with zipfile.ZipFile(made, "w", packing) as archive:
                for name in names:
                    archive.writestr(name, content)
            self.seeds.append(("x.zip", made.getvalue()))
        for mode, end in (("w", "tar"), ("w:gz", "tar.gz"), ("w:xz", "tar.xz")):
            made = io.BytesIO()
            with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
                for name in names:
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
                link = tarfile.TarInfo("link")
                link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(link)
            self.seeds.append((f"x.{end}", made.getvalue()))

    def unpack(self, rng: random.Random) -> None:
        """Unpack a mutated archive and look where its members went."""
        name, seed = rng.choice(self.seeds)
        for path in self.home.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        archive = self.home / name
        archive.write_bytes(mutated(seed, rng, dicom=False))
        size = archive.stat().st_size
        with contextlib.suppress(CacError):
            for file in with_members([ScannedFile(str(archive), size, 1)], self.into, _SMALL):
                if file.reason is None:
                    assert Path(file.path).resolve().is_relative_to(self.into)
        assert {path.name for path in self.home.iterdir()} <= {name, "members"}
        assert not any(path.is_symlink() for path in self.into.rglob("*"))
        assert not Path("/tmp/cac-fuzz-out.dcm").exists()


def _outcome(found: Iterable[bytes]) -> tuple[list[bytes], str | None]:
    """The parts before a fault, and the fault."""
    taken: list[bytes] = []
    try:
        taken.extend(found)
    except SourceError as error:
        return taken, str(error)
    return taken, None


def _write(path: Path, content: bytes, rng: random.Random) -> None:
    """Write a file, or its compressed form, sometimes a damaged one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if rng.random() < 0.6:
        path.write_bytes(content)
        return
    packed = gzip.compress(content, 1)
    if rng.random() < 0.3:
        packed = mutated(packed, rng, dicom=False)
    path.with_name(f"{path.name}.gz").write_bytes(packed)


def _as_json(dataset: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        dataset.to_json(bulk_data_threshold=1, bulk_data_element_handler=lambda element: "http://x")
    )
    return found


def _items_of_pydicom() -> list[dict[str, Any]]:
    """Headers of the test files of pydicom that can be written as JSON."""
    items = []
    for path in pydicom_files("*.dcm"):
        with contextlib.suppress(Exception), datafile.quiet_pydicom():
            items.append(_as_json(dcmread(path, stop_before_pixels=True)))
    return [item for item in items if len(json.dumps(item)) < 6000]
