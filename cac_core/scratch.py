"""Private working folders of one process; left-over ones are removed by the next process."""

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
    """Create a folder of mode 700 that is removed at the end, or later if the process is killed.

    The folder is locked while in use; the system releases the lock when the process dies.

    Parameters
    ----------
    prefix : beginning of its name.
    parent : folder that holds it; default: the folder for temporary files.
    leaving : called with each folder of a killed process before it is removed.

    Raises
    ------
    OSError
        If it cannot be created.
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
    """Whether a path has the name of such a folder."""
    return re.fullmatch(re.escape(prefix) + _NUMBER, path.name) is not None


def _remove_left_behind(parent: Path, prefix: str, leaving: Callable[[Path], None]) -> None:
    with contextlib.suppress(OSError):
        for folder in [path for path in parent.iterdir() if is_scratch(path, prefix)]:
            with contextlib.suppress(OSError), _locked(folder, required=True):
                leaving(folder)
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, *, required: bool = False) -> Iterator[None]:
    """Lock a folder of this user.

    With `required`, raises OSError where another process or user holds it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if required and os.fstat(handle).st_uid != os.geteuid():
            raise PermissionError
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if required:
                raise
            # A file system without locks: no other process can lock the folder and remove it.
        yield
    finally:
        os.close(handle)
