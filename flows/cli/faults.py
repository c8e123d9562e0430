"""What can be said of a fault that nobody foresaw, without saying whom it concerns."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from flows.runtime.isolation import flag

_OURS = ("flows", "tasks", "cac_core", "schemas")
_PROJECT = Path(__file__).resolve().parents[1]
_archives: set[Path] = set()


def debugging() -> bool:
    """Whether CAC_DEBUG asks for tracebacks."""
    return flag("CAC_DEBUG")


def keep_unsaid(folder: Path) -> None:
    """Have no path below this folder of an archive in a message: it may bear a patient's name."""
    _archives.add(_absolute(folder))


def what_happened(error: BaseException) -> str:
    """Kind and place of a fault; its own text only where that cannot hold data of patients.

    That is so of what the operating system says, and of a module that is missing. Paths are named,
    unless they lie in an archive.
    """
    parts = [type(error).__name__]
    if isinstance(error, OSError) and error.strerror:
        parts.append(str(error.strerror))
        parts += [str(name) for name in (error.filename, error.filename2) if _may_be_said(name)]
    elif isinstance(error, ImportError) and error.name:
        parts.append(f"module {error.name}")
    elif isinstance(error, MemoryError):
        parts.append("not enough memory")
    text = ": ".join(parts)
    place = _place(error)
    return f"{text} (in {place})" if place else text


def _place(error: BaseException) -> str:
    """Module, function and line of ours in which it happened."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_PROJECT):
            inside = path.relative_to(_PROJECT)
            if inside.parts[0] in _OURS:
                module = ".".join(inside.with_suffix("").parts)
                return f"{module}.{frame.name}, line {frame.lineno}"
    return ""


def _may_be_said(name: object) -> bool:
    if not isinstance(name, str | os.PathLike):
        return False
    path = _absolute(Path(name))
    return not any(path.is_relative_to(folder) for folder in _archives)


def _absolute(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path))
    except OSError:  # the current folder is gone
        return path
