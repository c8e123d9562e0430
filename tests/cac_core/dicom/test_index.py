"""The archive index: any layout, a row for every faulty file, no repeated reads, no identifiers."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_files

from cac_core import study as study_module
from cac_core.cohort.warehouse import Warehouse
from cac_core.cohort.worklist import Identity, wanted_studies, work_orders
from cac_core.dicom import index as index_module
from cac_core.dicom.files import scan_archive
from cac_core.dicom.header_pool import read_headers
from cac_core.dicom.index import ArchiveIndex, fitting_rows, index_archive
from cac_core.dicom.limits import HeaderLimits
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import load_rules
from cac_core.dicom.series import series_table
from cac_core.errors import CacError, UsageError
from cac_core.keys import Keyring
from schemas.instance import INSTANCES
from tests.builders.dicom_files import ct_dataset, write_dicom, write_slices

KEYS = Keyring(b"a secret of the index tests")


def index(*roots: Path, **options: Any) -> ArchiveIndex:
    return index_archive(roots, KEYS, **options)


def reason_of(found: ArchiveIndex, path: Path) -> str | None:
    key = KEYS.path_key(str(path))
    reasons = dict(
        zip(
            found.instances["path_key"].to_pylist(),
            found.instances["reason"].to_pylist(),
            strict=True,
        )
    )
    reason: str | None = reasons[key]
    return reason


def touch(path: Path) -> None:
    later = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(later, later))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """One study in two folders, two studies in one, and files that are not DICOM."""
    root = tmp_path / "archive"
    write_slices(root / "a", 3, SeriesInstanceUID="1.1", StudyInstanceUID="1")
    write_slices(root / "b" / "deep", 2, SeriesInstanceUID="1.2", StudyInstanceUID="1")
    write_slices(root / "a", 2, SeriesInstanceUID="2.1", StudyInstanceUID="2", PatientID="other")
    (root / "a" / ".hidden").write_bytes((root / "a" / "1.1-000").read_bytes()[:-5])
    (root / "notes.txt").write_text("nothing to see")
    (root / "empty.dcm").touch()
    return root


def test_every_file_is_a_row(archive: Path) -> None:
    found = index(archive)
    INSTANCES.validate(found.instances)
    assert (found.n_files, found.n_opened, found.instances.num_rows) == (10, 10, 10)
    assert found.reasons == {"empty_file": 1, "not_dicom": 1, "truncated": 1}
    assert reason_of(found, archive / "a" / ".hidden") == "truncated"
    studies = found.instances["study_key"].to_pylist()
    assert studies.count(KEYS.study_key("1")) == 6
    assert studies.count(KEYS.study_key("2")) == 2
    assert {str(path) for path in found.paths.values()} == {
        str(path) for path in archive.rglob("*") if path.is_file()
    }
    keys = found.instances["path_key"].to_pylist()
    assert keys == sorted(keys) and set(keys) == set(found.paths)


def test_spelling_of_the_root_does_not_matter(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = index(archive)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(archive)
    for spelling in ("archive", "./archive/../archive/", "link"):
        assert index(Path(spelling)).instances.equals(first.instances)
    assert index(archive, archive / "a", archive / "b").instances.equals(first.instances)
    assert index(archive / "a" / "1.1-000").n_files == 1


def test_the_number_of_workers_does_not_change_the_table(archive: Path) -> None:
    assert index(archive, workers=1).instances.equals(index(archive, workers=3).instances)


def test_unchanged_files_are_not_opened(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = index(archive)

    def refuse(paths: list[str], *_: object, **__: object) -> list[object]:
        assert not paths
        return []

    monkeypatch.setattr(index_module, "read_headers", refuse)
    second = index(archive, previous=first.instances)
    assert second.n_opened == 0
    assert second.instances.equals(first.instances)
    assert second.reasons == first.reasons


def test_new_changed_and_removed_files(archive: Path) -> None:
    first = index(archive)
    touch(archive / "a" / "1.1-001")
    (archive / "a" / "1.1-002").unlink()
    write_dicom(archive / "new", ct_dataset(SeriesInstanceUID="9"))
    second = index(archive, previous=first.instances)
    assert second.n_opened == 2
    assert second.instances.equals(index(archive).instances)


def test_order_of_previous_does_not_matter(archive: Path) -> None:
    first = index(archive)
    order = list(reversed(range(first.instances.num_rows)))
    shuffled = index(archive, previous=first.instances.take(pa.array(order)))
    assert shuffled.n_opened == 0 and shuffled.instances.equals(first.instances)
    touch(archive / "notes.txt")
    second = index(archive, previous=first.instances.take(pa.array(order)))
    assert second.n_opened == 1
    assert second.instances["path_key"].equals(first.instances["path_key"])


def test_previous_from_parquet(archive: Path, tmp_path: Path) -> None:
    first = index(archive)
    pq.write_table(first.instances, tmp_path / "instances.parquet")
    stored = pq.read_table(tmp_path / "instances.parquet")
    touch(archive / "notes.txt")
    second = index(archive, previous=stored)
    assert second.n_opened == 1
    assert second.instances.equals(index(archive).instances)


def test_an_index_of_an_earlier_version_is_read_again(archive: Path, tmp_path: Path) -> None:
    store = Warehouse(tmp_path / "warehouse")
    found = index(archive)
    store.replace(INSTANCES, found.instances)
    (file,) = (tmp_path / "warehouse").rglob("instances.parquet")
    added = ["study_date_source", "acquisition_time_s", "content_digest", "text_policy"]
    pq.write_table(pq.read_table(file).drop_columns(added), file)
    again = index(archive, previous=store.read(INSTANCES))
    assert again.n_opened == again.n_files
    assert again.instances.equals(found.instances)


def test_another_secret_or_schema_reads_everything_again(archive: Path) -> None:
    first = index(archive)
    other = index_archive([archive], Keyring(b"another"), previous=first.instances)
    assert other.n_opened == 10
    assert index(archive, previous=first.instances.drop(["KVP"])).n_opened == 10


def test_a_duplicate_replaces_a_removed_file(archive: Path) -> None:
    original, copy = archive / "a" / "1.1-000", archive / "copy"
    copy.write_bytes(original.read_bytes())
    first = index(archive)
    assert first.reasons["duplicate_instance"] == 1
    marked = copy if reason_of(first, copy) else original
    kept = original if marked is copy else copy
    kept.unlink()
    second = index(archive, previous=first.instances)
    assert "duplicate_instance" not in second.reasons
    assert reason_of(second, marked) is None


def test_loops_end(archive: Path) -> None:
    (archive / "a" / "up").symlink_to(archive)
    (archive / "self").symlink_to(archive / "self")
    (archive / "nowhere").symlink_to(archive / "gone")
    found = index(archive)
    assert found.n_files == 13
    assert reason_of(found, archive / "a" / "up") == "symlink_loop"
    assert reason_of(found, archive / "self") == "symlink_loop"
    assert reason_of(found, archive / "nowhere") == "vanished"
    assert index(archive, previous=found.instances).n_opened == 0


def test_outside_folders_are_followed_once(archive: Path, tmp_path: Path) -> None:
    write_slices(tmp_path / "elsewhere", 2, SeriesInstanceUID="7")
    (archive / "one").symlink_to(tmp_path / "elsewhere")
    (archive / "two").symlink_to(tmp_path / "elsewhere")
    found = index(archive)
    assert found.n_files == 12
    assert str(archive / "one" / "7-000") in {str(path) for path in found.paths.values()}


def test_links_do_not_multiply_files(tmp_path: Path) -> None:
    for level in range(30):
        folder = tmp_path / f"{level:02d}"
        folder.mkdir()
        for name in "ab":
            (folder / name).symlink_to(tmp_path / f"{level + 1:02d}")
    (tmp_path / "30").mkdir()
    assert scan_archive([tmp_path / "00"]) == []


def test_pipes_are_not_opened(archive: Path) -> None:
    os.mkfifo(archive / "pipe")
    found = index(archive)
    assert reason_of(found, archive / "pipe") == "not_dicom"
    assert found.n_opened == 10


def test_unreadable_folders_are_rows(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def guarded(path: str) -> Any:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    found = index(archive)
    assert reason_of(found, archive / "b") == "no_permission"
    monkeypatch.undo()
    assert index(archive, previous=found.instances).instances.num_rows == 10


def test_undecodable_file_names(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / os.fsdecode(b"gr\xfc\xdfe\nnew")).write_bytes(b"no dicom")
    assert index(folder).reasons == {"not_dicom": 1}


def test_empty_archive(tmp_path: Path) -> None:
    found = index(tmp_path)
    assert (found.n_files, found.instances.num_rows) == (0, 0)
    assert found.instances.schema.equals(INSTANCES.arrow_schema)
    assert index(tmp_path, previous=found.instances).n_files == 0


def test_missing_roots_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read") as caught:
        index(tmp_path / "gone")
    assert caught.value.hint


def test_no_identifier_is_stored(tmp_path: Path) -> None:
    write_slices(
        tmp_path / "Muster_Erika",
        2,
        SeriesDescription="CTAC Muster 0012345",
        StudyInstanceUID="1.2.826.77",
        SeriesInstanceUID="1.2.826.77.1",
        FrameOfReferenceUID="1.2.826.77.2",
    )
    found = index(tmp_path)
    text = (str(found.instances.to_pylist()) + repr(found)).casefold()
    for secret in ("muster", "erika", "0012345", "acc4711", "19500312", "1.2.826.77", "maria"):
        assert secret not in text


def test_progress_is_reported(archive: Path) -> None:
    reported: list[tuple[int, int]] = []
    index(archive, progress=lambda done, total: reported.append((done, total)))
    assert reported[-1] == (10, 10)
    assert reported == sorted(reported)


def test_every_file_of_pydicom_gives_a_row() -> None:
    folder = Path(get_testdata_files("CT_small.dcm")[0]).parent
    found = index(folder)
    assert found.instances.num_rows == found.n_files
    assert found.instances["reason"].null_count > 60


#: A reader that dies or hangs on certain names, as a hostile file might make it.
BAD_WORKER = """
import os, sys, time
from multiprocessing.connection import Connection
from cac_core.dicom import header, header_worker

def read(path, *arguments):
    if "kill" in path:
        os._exit(9)
    if "hang" in path:
        time.sleep(600)
    return header.read_header(path, *arguments)

header_worker.read_header = read
header_worker.serve(Connection(int(sys.argv[1])))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "bad_worker.py").write_text(BAD_WORKER)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    return "bad_worker"


def test_a_faulty_reader_loses_one_file_only(tmp_path: Path, module: str) -> None:
    paths = [str(path) for path in write_slices(tmp_path, 40)]
    bad = {5: "kill1", 6: "hang", 30: "kill2"}
    for number, name in bad.items():
        paths[number] = str(tmp_path / name)
    start = time.monotonic()
    limits = HeaderLimits(seconds=1.5)
    rows = read_headers(paths, KEYS, workers=2, limits=limits, worker_module=module)
    assert time.monotonic() - start < 30
    assert len(rows) == 40
    assert {n: row for n, row in enumerate(rows) if row[0]} == {
        number: ("header_limits",) for number in bad
    }


def test_readers_that_do_not_start_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(CacError, match="did not start"):
        read_headers(["x"], KEYS, workers=1, limits=HeaderLimits(), worker_module="no_such_module")


def test_all_readers_are_ended(archive: Path) -> None:
    index(archive)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    if children.exists():
        names = [Path(f"/proc/{pid}/cmdline") for pid in children.read_text().split()]
        assert not any(b"header_worker" in n.read_bytes() for n in names if n.exists())


@pytest.mark.parametrize("seconds", [2**34, -(2**34), -1, 0])
def test_any_modification_time_gives_a_row(tmp_path: Path, seconds: int) -> None:
    paths = write_slices(tmp_path, 24)
    os.utime(paths[3], ns=(seconds * 10**9, seconds * 10**9))
    found = index(tmp_path)
    assert found.instances.num_rows == 24 and found.reasons == {}
    assert index(tmp_path, previous=found.instances).n_opened == 0
    # The worker sees the same time as the index.
    series = select_series(series_table(found.instances), load_rules())
    wanted = wanted_studies(found.instances, series, Identity("a" * 64, "b" * 16, "c" * 16))
    (order,) = work_orders(wanted, found.instances, found.paths)
    study_module._check_unchanged(order)


def test_unusual_file_names_give_rows(tmp_path: Path) -> None:
    (source,) = write_slices(tmp_path / "source", 1)
    names = [b"a\nb.dcm", b"\xff\xfe", b"-rf", b"tab\t", "\u202e.dcm".encode(), b"x" * 255]
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(source.read_bytes())
    found = index(folder)
    assert found.n_files == len(names)
    assert found.reasons == {"duplicate_instance": len(names) - 1}


#: Values that a broken header, or a reader of it, might give to any column.
ODD = st.one_of(
    st.none(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["\ud800", "\0", "x" * 10_000, b"\xff", True]),
    st.sampled_from([dt.date.min, dt.date.max, dt.date(1, 1, 1)]),
)


@given(st.data())
@hypothesis.settings(max_examples=12, deadline=None)
@pytest.mark.slow
def test_an_invalid_row_does_not_affect_others(data: st.DataObject) -> None:
    names = (*index_module._NAMES,)
    good = dict.fromkeys(names) | {
        "path_key": KEYS.path_key("good"),
        "size_bytes": 1,
        "mtime_ns": 1,
        "study_key": KEYS.study_key("1"),
        "SeriesInstanceUID": KEYS.pseudonym_uid("1.1"),
        "SOPInstanceUID": KEYS.pseudonym_uid("1.1.1"),
        "Modality": "CT",
    }
    changed = data.draw(st.dictionaries(st.sampled_from(names[3:]), ODD, min_size=1, max_size=4))
    bad = good | {"path_key": KEYS.path_key("bad")} | changed
    table = fitting_rows([tuple(row[name] for name in names) for row in (good, bad)])
    INSTANCES.validate(table)
    first, second = table.to_pylist()
    assert first == {name: good[name] for name in INSTANCES.arrow_schema.names}
    assert second["path_key"] == bad["path_key"]
    series = series_table(table)
    assert KEYS.study_key("1") in series["study_key"].to_pylist()
    decided = select_series(series, load_rules())
    assert wanted_studies(table, decided, Identity("a" * 64, "b" * 16, "c" * 16)).num_rows >= 1


def test_an_invalid_row_keeps_its_study(tmp_path: Path) -> None:
    values = dict.fromkeys(index_module._NAMES) | {
        "path_key": KEYS.path_key("bad"),
        "size_bytes": 1,
        "mtime_ns": 2**70,
        "study_key": KEYS.study_key("1"),
        "SeriesInstanceUID": KEYS.pseudonym_uid("1.1"),
        "Rows": 2**40,
    }
    (row,) = fitting_rows([tuple(values.values())]).to_pylist()
    assert (row["reason"], row["study_key"]) == ("unreadable_header", KEYS.study_key("1"))
    assert (row["Rows"], row["mtime_ns"], row["size_bytes"]) == (None, 0, 1)
