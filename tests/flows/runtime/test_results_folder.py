"""Output folders: only files of the program are replaced or removed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError, UsageError
from flows.pages.archive import write_archive_page
from flows.runtime.results_folder import LIST, require_replaceable, results_folder, write_files

_FIRST = {"index.html": b"old", "tables/old.csv": b"1", "tables/both.csv": b"2"}
_SECOND = {"index.html": b"new", "tables/both.csv": b"3", "figures/a.svg": b"4"}


def _write(out: Path, files: dict[str, bytes], *, whole: bool = True) -> None:
    with results_folder(out, "report", whole=whole) as folder:
        write_files(files, folder)


def _files(out: Path) -> dict[str, bytes]:
    found = (path for path in out.rglob("*") if path.is_file() and path.name != LIST)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


def test_a_second_result_replaces_the_first_and_keeps_what_others_added(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _write(out, _FIRST)
    (out / "notes.docx").write_bytes(b"mine")
    (out / "tables" / "mine.csv").write_bytes(b"mine")
    require_replaceable(out, "report")
    _write(out, _SECOND)
    assert _files(out) == _SECOND | {"notes.docx": b"mine", "tables/mine.csv": b"mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_folders_left_empty_are_removed(tmp_path: Path) -> None:
    _write(tmp_path / "out", {"a/b/c.csv": b"1", "a/d.csv": b"2", "e.csv": b"3"})
    _write(tmp_path / "out", {"a/d.csv": b"2"})
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == [LIST, "a", "d.csv"]


@pytest.mark.parametrize("name", ["tables/both.csv", "tables/old.csv", "index.html"])
def test_an_edited_file_is_not_replaced(tmp_path: Path, name: str) -> None:
    _write(tmp_path, _FIRST)
    (tmp_path / name).write_bytes(b"corrected by hand")
    with pytest.raises(UsageError, match=f"{name} was changed"):
        require_replaceable(tmp_path, "report")
    before = _files(tmp_path)
    if name in _SECOND:
        with pytest.raises(UsageError, match="was changed"):
            _write(tmp_path, _SECOND)
        assert _files(tmp_path) == before
    else:  # it would be removed; it stays instead
        _write(tmp_path, _SECOND)
        assert _files(tmp_path) == _SECOND | {name: b"corrected by hand"}


def test_a_foreign_file_is_not_overwritten(tmp_path: Path) -> None:
    _write(tmp_path, _FIRST)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.svg").write_bytes(b"mine")
    with pytest.raises(UsageError, match="not written by this program"):
        _write(tmp_path, _SECOND)
    assert _files(tmp_path) == _FIRST | {"figures/a.svg": b"mine"}


def test_a_linked_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o750)
    (tmp_path / "out").symlink_to("disk")
    for files in (_FIRST, _SECOND):
        _write(tmp_path / "out", files)
        assert (tmp_path / "out").is_symlink() and _files(tmp_path / "disk") == files
    assert (tmp_path / "disk").stat().st_mode & 0o777 == 0o750


def test_a_linked_file_is_not_written_through(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _write(out, _FIRST)
    (tmp_path / "elsewhere").write_bytes(b"old")
    (out / "index.html").unlink()
    (out / "index.html").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="was changed"):
        _write(out, _SECOND)
    assert (tmp_path / "elsewhere").read_bytes() == b"old"


@pytest.mark.parametrize(
    "reported",
    [
        None,
        "{",
        "[]",
        json.dumps({"results": {"comparison": {}}}),
        json.dumps({"results": {"report": {"../letters.txt": ["0"]}}}),
    ],
)
def test_a_folder_without_a_valid_list_is_refused(tmp_path: Path, reported: str | None) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "index.html").write_bytes(b"a page of somebody else")
    if reported is not None:
        (out / LIST).write_text(reported, encoding="utf-8")
    with pytest.raises(UsageError, match="not a report"):
        require_replaceable(out, "report")


def test_an_error_while_writing_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), results_folder(out, "report") as folder:
        write_files(_FIRST, folder)
        raise KeyboardInterrupt
    assert not out.exists()
    _write(out, _FIRST)
    with pytest.raises(ZeroDivisionError), results_folder(out, "report") as folder:
        write_files(_SECOND, folder)
        raise ZeroDivisionError
    assert _files(out) == _FIRST


def test_an_interrupted_result_can_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, _FIRST)
    replace, calls = Path.replace, []

    def stopped(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 3:  # the list, then one file, then the power is gone
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(CacError, match="cannot be written"):
        _write(tmp_path, _SECOND)
    monkeypatch.undo()
    require_replaceable(tmp_path, "report")
    _write(tmp_path, _SECOND)
    assert _files(tmp_path) == _SECOND


def test_results_can_share_a_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_bytes(b"dear")
    _write(tmp_path, {"linked.csv": b"1"}, whole=False)
    _write(tmp_path, {"adtte.csv": b"2"}, whole=False)
    _write(tmp_path, {"linked.csv": b"3"}, whole=False)
    expected = {"letters.txt": b"dear", "linked.csv": b"3", "adtte.csv": b"2"}
    assert _files(tmp_path) == expected
    with pytest.raises(UsageError, match="not written by this program"):
        _write(tmp_path, {"letters.txt": b"4"}, whole=False)
    assert _files(tmp_path) == expected


def test_a_report_and_an_export_can_share_a_folder(tmp_path: Path) -> None:
    export = {"adtte.csv": b"2"}
    _write(tmp_path, _FIRST)
    for files in (_SECOND, _FIRST):
        with results_folder(tmp_path, "export", whole=False) as folder:
            write_files(export, folder)
        require_replaceable(tmp_path, "report")
        _write(tmp_path, files)
        assert _files(tmp_path) == files | export
    (tmp_path / "adtte.csv").write_bytes(b"mine")
    _write(tmp_path, _SECOND)
    with pytest.raises(UsageError, match=r"adtte\.csv was changed"):
        _write(tmp_path, _SECOND | export)


_KILLED = """
import os, signal, sys
from pathlib import Path
from flows.runtime.results_folder import results_folder
with results_folder(Path(sys.argv[1]), "report") as folder:
    (folder / "index.html").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert subprocess.run([sys.executable, "-c", _KILLED, str(out)], check=False).returncode == -9
    assert [path.name[:9] for path in out.iterdir()] == [".writing-"]
    with results_folder(out, "report") as other:  # at work at the same time
        require_replaceable(out, "report")
        _write(out, _FIRST)
        assert other.is_dir()
        assert {path.name for path in out.iterdir()} == {"index.html", "tables", LIST, other.name}
    assert not other.exists()


def test_a_linked_folder_within_a_result_is_not_written_through(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    _write(out, _FIRST)
    (out / "tables").rename(elsewhere)
    (out / "tables").symlink_to(elsewhere)
    with pytest.raises(UsageError, match="through a link"):
        require_replaceable(out, "report")
    _write(out, {"index.html": b"new"})  # without tables: the old ones are removed, not those there
    assert _files(elsewhere) == {"old.csv": b"1", "both.csv": b"2"}


def test_an_impossible_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for out in (tmp_path / ("a" * 300), tmp_path / "loop", tmp_path / "loop" / "out"):
        with pytest.raises(CacError, match="cannot be written"):
            require_replaceable(out, "report")
            _write(out, _FIRST)
    with pytest.raises(CacError, match="cannot be written"):
        _write(tmp_path / "a" / "b" / "c", {"x" * 300: b""})
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


def test_the_result_does_not_depend_on_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _write(Path("out"), _FIRST)
    assert _files(tmp_path / "out") == _FIRST
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "table", "mine.csv", "--synthetic", "3"),
        ("train", "split", "mine.csv", "--out", "mine.csv"),
        ("registry", "extracts", "--patients", "3"),
        ("phantom", "archive", "--studies", "1"),
    ],
)
def test_a_command_overwrites_no_file_of_the_user(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    mine = [tmp_path / name for name in ("mine.csv", "extracts_truth.parquet", "truth.parquet")]
    for path in mine:
        path.write_bytes(b"study,annotation\n")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("cac")), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "exists already" in " ".join(done.stderr.split())
    assert sorted(tmp_path.iterdir()) == sorted(mine)
    assert {path.read_bytes() for path in mine} == {b"study,annotation\n"}


def test_a_page_replaces_only_a_page(tmp_path: Path) -> None:
    store = Warehouse(tmp_path / "wh")
    page, letter = tmp_path / "page.html", tmp_path / "letter.html"
    write_archive_page(store, page)
    write_archive_page(store, page)
    letter.write_text("<html>dear</html>", encoding="utf-8")
    with pytest.raises(UsageError, match="is not a page of this program"):
        write_archive_page(store, letter)
    assert letter.read_text(encoding="utf-8") == "<html>dear</html>"
