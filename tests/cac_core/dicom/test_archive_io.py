"""A drive that is gone, empty or silent is told from a file that cannot be read."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cac_core.dicom import archive_io
from cac_core.dicom.archive_io import answered, answered_each, is_there, require_there, unreadable
from cac_core.errors import CacError
from schemas.codes import StudyReason

R = StudyReason


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOTCONN, R.ARCHIVE_UNAVAILABLE),
        (errno.ESTALE, R.ARCHIVE_UNAVAILABLE),
        (errno.EHOSTDOWN, R.ARCHIVE_UNAVAILABLE),
        (errno.ENODEV, R.ARCHIVE_UNAVAILABLE),
        (errno.EIO, R.UNREADABLE_FILE),  # unless the whole archive is away
        (errno.ENOENT, R.UNREADABLE_FILE),
        (errno.EACCES, R.UNREADABLE_FILE),
    ],
)
def test_errors_of_a_drive(number: int, reason: StudyReason) -> None:
    fault = unreadable(OSError(number, os.strerror(number), "/archive/Meier^Anna/1.dcm"))
    assert (fault.reason, fault.rejected) == (reason, False)
    assert fault.detail == errno.errorcode[number]


def test_an_empty_or_missing_folder_is_away(tmp_path: Path) -> None:
    full, empty, missing = tmp_path / "full", tmp_path / "empty", tmp_path / "missing"
    (full / "study").mkdir(parents=True)
    empty.mkdir()
    file = tmp_path / "one.dcm"
    file.touch()
    assert [is_there(path) for path in (full, file, empty, missing)] == [True, True, False, False]
    require_there([full, file])
    with pytest.raises(CacError, match="empty is away"):
        require_there([full, empty])


def test_a_call_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named pipe that nobody writes to: opening it never returns."""
    monkeypatch.setattr(archive_io, "_PATIENCE_S", 1.0)
    monkeypatch.setattr(archive_io, "_SHORT_PATIENCE_S", 0.1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    times = []
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            answered(pipe.read_bytes)
        times.append(time.monotonic() - began)
        assert unreadable(caught.value).reason == R.ARCHIVE_UNAVAILABLE
    assert times[0] >= 1.0 > times[1]  # once it hung, the next call gets little time
    os.close(os.open(pipe, os.O_RDWR))  # lets both threads go; as a writer alone it would wait
    assert answered(len, "abc") == 3
    with pytest.raises(ZeroDivisionError):
        answered(divmod, 1, 0)


def test_items_before_one_that_hangs_are_given_and_slow_ones_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together the first items take longer than one may; then comes a pipe without a writer."""
    monkeypatch.setattr(archive_io, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(archive_io, "_last_hung", threading.Event())
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def slow() -> Iterator[int]:
        for number in range(5):
            time.sleep(0.3)
            yield number
        yield len(pipe.read_bytes())

    found = []
    with pytest.raises(TimeoutError):
        for number in answered_each(slow()):
            found.append(number)
    assert found == [0, 1, 2, 3, 4]
    os.close(os.open(pipe, os.O_RDWR))


def test_more_items_than_are_read_together_and_an_error_after_them() -> None:
    assert list(answered_each(iter(range(50)))) == list(range(50))

    def broken() -> Iterator[int]:
        yield from range(20)
        raise OSError("gone")

    found = answered_each(broken())
    assert [next(found) for _ in range(20)] == list(range(20))
    with pytest.raises(OSError, match="gone"):
        next(found)
