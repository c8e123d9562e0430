"""Folders that one process works in, only its user can enter, and the next process clears away."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

_NUMBER = "[0-9a-f]{32}"


@contextlib.contextmanager
def scratch_folder(
    prefix: str,
    parent: Path | None = None,
    leaving: Callable[[Path], None] = lambda folder: None,
) -> Iterator[Path]:
    """A folder of mode 700 that is removed at the end, by the next process if this one is killed.

    It is locked while it is in use; the system lets go of the lock when the process dies.

    Parameters
    ----------
    prefix : beginning of its name.
    parent : where it lies; default: the folder for temporary files.
    leaving : called with a folder that a killed process left, before it is removed.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    parent = Path(tempfile.gettempdir() if parent is None else parent).absolute()
    _remove_left_behind(parent, prefix, leaving)
    number = uuid.uuid4().hex
    fresh, folder = parent / f".new-{number}", parent / f"{prefix}{number}"
    fresh.mkdir(mode=0o700)
    try:
        with _locked(fresh):
            fresh.rename(folder)
            yield folder
    finally:
        for path in (fresh, folder):
            shutil.rmtree(path, ignore_errors=True)


def is_scratch(path: Path, prefix: str) -> bool:
    """Whether a path is named as such a folder."""
    return re.fullmatch(re.escape(prefix) + _NUMBER, path.name) is not None


def _remove_left_behind(parent: Path, prefix: str, leaving: Callable[[Path], None]) -> None:
    with contextlib.suppress(OSError):
        for folder in [path for path in parent.iterdir() if is_scratch(path, prefix)]:
            with contextlib.suppress(OSError), _locked(folder, must=True):
                leaving(folder)
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, *, must: bool = False) -> Iterator[None]:
    """Hold a folder of this user; OSError where another process holds it and we `must`."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if must and os.fstat(handle).st_uid != os.geteuid():
            raise PermissionError
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if must:
                raise
            # A file system without locks: nobody else can hold it either, so nobody removes it.
        yield
    finally:
        os.close(handle)
