"""Files at a URL: listing, headers, versions, and faults in one line."""

from __future__ import annotations

import pickle
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec.registry  # noqa: F401 - its module is hidden by a name of the package
import pyarrow as pa
import pytest

from cac_core import storage
from cac_core.cohort.worklist import Identity, wanted_studies, work_orders
from cac_core.dicom.index import index_archive
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import load_rules
from cac_core.dicom.series import series_table
from cac_core.dicom.volume import read_volume
from cac_core.errors import CacError, StudyError, UsageError
from cac_core.keys import Keyring
from cac_core.phantom.archive.write import write_archive
from cac_core.storage import RemoteFile, archive_file, is_url, list_files, require_answer
from cac_core.study import _check_unchanged

ODD = "a b [1] {2} *?#%41 é 心"
KEYRING = Keyring(b"a secret used by the tests only")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("url") / ODD
    write_archive(folder, studies=1, seed=3, workers=1)
    return folder


def test_what_is_a_url() -> None:
    assert all(map(is_url, ("s3://b/p", "memory://x", "simplecache::s3://b/p", "file:///x")))
    assert not any(map(is_url, ("/a/s3://b", "s3:/b", "a b://c", "folder", "C::x", "://x")))


def test_an_archive_at_a_url_is_indexed_as_its_folder(archive: Path) -> None:
    url = f"file://{archive}"
    here = index_archive([archive], KEYRING, workers=1)
    there = index_archive([url], KEYRING, workers=1)
    assert there.n_files == here.n_files > 10
    assert there.reasons == here.reasons

    def rows(table: pa.Table) -> list[dict[str, object]]:
        kept = table.drop_columns(["path_key", "mtime_ns"]).to_pylist()
        return sorted(kept, key=lambda row: str(row["SOPInstanceUID"]))

    assert rows(there.instances) == rows(here.instances)
    again = index_archive([url], KEYRING, previous=there.instances, workers=1)
    assert again.n_opened == 0


def test_a_study_at_a_url_is_read_as_from_its_folder(tmp_path: Path, archive: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(archive, copied)
    volumes = []
    for root in (copied, f"file://{copied}"):
        index = index_archive([root], KEYRING, workers=1)
        series = select_series(series_table(index.instances), load_rules(None))
        wanted = wanted_studies(index.instances, series, Identity("m", "p", "r"))
        (order,) = work_orders(wanted, index.instances, index.paths)
        _check_unchanged(order)
        files = [archive_file(stamp.path, stamp.size_bytes) for stamp in order.files]
        volumes.append(read_volume(files))
    assert volumes[0].pixel_digest == volumes[1].pixel_digest
    Path(order.files[0].path.removeprefix("file://")).unlink()
    with pytest.raises(StudyError, match="unreadable_file: ENOENT"):
        _check_unchanged(order)


def test_an_object_replaced_within_a_second_has_another_time() -> None:
    first = {"LastModified": 1000.9, "ETag": '"a"'}
    assert storage.modification_ns(first) // 10**9 == 1000
    # A listing rounds to another fraction of a second than a single request.
    assert storage.modification_ns(first | {"LastModified": 1000}) == storage.modification_ns(first)
    assert storage.modification_ns(first | {"ETag": '"b"'}) != storage.modification_ns(first)


def test_ranges_and_names_stay_inside() -> None:
    filesystem, path = storage.open_url(f"memory://ranges/{ODD}/x")
    filesystem.pipe_file(path, b"0123456789")
    ((url, size, _),) = list_files("memory://ranges")
    file = RemoteFile(url, size)
    assert file.read_bytes() == b"0123456789"
    assert (file.read_range(4, 8), file.read_range(4, 12)) == (b"89", b"")
    assert pickle.loads(pickle.dumps(file)) == file
    assert ODD not in repr(file)
    assert list_files("memory://nothing-there") == []


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("s3://key:secret@bucket/x", "holds credentials"),
        ("s3://", "names no bucket"),
        ("nonsense://x", "cannot be opened"),
    ],
)
def test_a_malformed_url_is_refused_in_one_line(url: str, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        require_answer(url, "warehouse")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(UsageError, match="python -m pip install s3fs"):
        storage.open_url("s3://bucket/x")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow
@pytest.mark.parametrize("listening", [False, True])
def test_an_endpoint_that_does_not_answer_is_named_within_30_s(
    listening: bool, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listening:
            silent.listen(50)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(CacError, match="it does not answer") as caught:
            require_answer("s3://bucket/x", "warehouse")
        assert time.monotonic() - begun < 30
        assert "AWS_ENDPOINT_URL" in caught.value.hint
