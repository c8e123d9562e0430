"""A folder of results that is written aside and put in place of the last one."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cac_core.errors import CacError, UsageError


def require_replaceable(out: Path, marks: Sequence[str], what: str) -> None:
    """Refuse a folder that is neither empty nor an earlier one of ours.

    Parameters
    ----------
    marks : files that tell such a folder from any other.
    what : what it would hold, for the message.

    Raises
    ------
    UsageError
        If there is something else at `out`.
    """
    if not out.exists():
        return
    ours = out.is_dir() and all((out / name).is_file() for name in marks)
    if not ours and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} is there and holds no {what}.", "Name another folder with --out.")


@contextlib.contextmanager
def replaced_folder(out: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `out` where all went well.

    Readers see the old folder or the new one, or for a moment none. A fault leaves the old one.

    Raises
    ------
    CacError
        If the folder cannot be written.
    """
    aside = out.parent / f".{out.name}-{uuid.uuid4().hex}"
    try:
        aside.mkdir(parents=True)
        yield aside
        old = out.parent / f".{out.name}-{uuid.uuid4().hex}"
        if out.exists():
            out.rename(old)
        aside.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise CacError(
            f"The folder {out} cannot be written ({error.strerror}).",
            "Name another with --out, or free space and permissions there.",
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files by their names relative to a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
