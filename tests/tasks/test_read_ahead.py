"""Files of the next studies are asked for while others are scored."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

from cac_core.study import FileStamp, StudyWork
from tasks.read_ahead import reading_ahead


def study(*paths: str) -> StudyWork:
    stamps = tuple(FileStamp(path, 1, 1) for path in paths)
    return StudyWork("s" * 32, None, None, stamps, "d" * 64)


def within(seconds: float, found: Callable[[], bool]) -> bool:
    end = monotonic() + seconds
    while not found() and monotonic() < end:
        sleep(0.01)
    return found()


def test_the_files_of_a_study_are_asked_for_when_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        os,
        "posix_fadvise",
        lambda fd, *_: asked.append(str(Path(f"/proc/self/fd/{fd}").readlink())),
    )
    paths = [str(tmp_path / name) for name in "abc"]
    for path in (paths[0], paths[2]):
        Path(path).write_bytes(b"1")
    works = [study(paths[0], paths[1], "s3://bucket/key"), study(paths[2])]  # b is not there
    taken = reading_ahead(works)
    assert next(taken) is works[0]
    assert within(20, lambda: asked == paths[:1])
    assert list(taken) == works[1:]
    assert within(20, lambda: asked == [paths[0], paths[2]])


def test_an_archive_that_hangs_delays_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = threading.Event()
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: hang.wait(60))
    path = tmp_path / "a"
    path.write_bytes(b"1")
    works = [study(str(path)) for _ in range(3)]
    began = monotonic()
    assert list(reading_ahead(works)) == works and monotonic() - began < 30
    hang.set()


def test_the_thread_ends_with_the_studies() -> None:
    assert list(reading_ahead([])) == []
    names = lambda: [thread.name for thread in threading.enumerate()]  # noqa: E731
    assert within(20, lambda: "cac-read-ahead" not in names())
