"""Working folders: private, removed at the end, or later where a process was killed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cac_core.cohort.database import Resources, database
from cac_core.scratch import scratch_folder

_KILLED = """
import os, signal, sys
from pathlib import Path
from cac_core.cohort.database import Resources, database
with database(Resources(scratch=Path(sys.argv[1]))) as (connection, folder):
    (folder / "extract.csv").write_text("PHN-1234")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_is_private_and_removed_at_the_end(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with pytest.raises(ZeroDivisionError), scratch_folder("cac-x-", tmp_path) as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            (folder / "file").write_text("")
            assert list(tmp_path.iterdir()) == [folder]
            raise ZeroDivisionError
    finally:
        os.umask(before)
    assert not list(tmp_path.iterdir())


def test_identifiers_of_a_killed_linkage_are_removed_by_the_next(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -9
    assert [path.read_text() for path in tmp_path.glob("*/extract.csv")] == ["PHN-1234"]
    with database(Resources(scratch=tmp_path)) as (_, folder):
        assert list(tmp_path.iterdir()) == [folder]


def test_folders_in_use_or_of_another_user_are_kept(tmp_path: Path) -> None:
    number = "0" * 32
    others = [
        tmp_path / "cac-x-results",
        tmp_path / f"cac-x-{number}.old",
        tmp_path / f"cac-y-{number}",
    ]
    for path in others:
        path.mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "letter").write_text("dear")
    (tmp_path / f"cac-x-{number}").symlink_to(tmp_path / "real")
    (tmp_path / f"cac-x-{number[:-1]}1").write_text("a file")
    with scratch_folder("cac-x-", tmp_path) as first, scratch_folder("cac-x-", tmp_path) as second:
        assert first.is_dir() and second.is_dir()
    assert all(path.is_dir() for path in others)
    assert (tmp_path / f"cac-x-{number}" / "letter").read_text() == "dear"
    assert (tmp_path / f"cac-x-{number[:-1]}1").read_text() == "a file"


def test_a_left_over_folder_is_reported_before_removal(tmp_path: Path) -> None:
    left = tmp_path / f"cac-x-{'a' * 32}"
    left.mkdir()
    shown: list[Path] = []
    with scratch_folder("cac-x-", tmp_path, shown.append):
        assert shown == [left] and not left.exists()
