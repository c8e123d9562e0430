"""Messages about unexpected errors that reveal no patient data."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from flows.runtime.isolation import flag

_PACKAGES = ("flows", "tasks", "cac_core", "schemas")
_PROJECT = Path(__file__).resolve().parents[2]
_archives: set[Path] = set()


def debugging() -> bool:
    """Whether CAC_DEBUG is on, which shows tracebacks."""
    return flag("CAC_DEBUG")


def hide_paths_below(folder: Path) -> None:
    """Keep paths below a folder of the archive out of messages: they can contain patient names."""
    _archives.add(_absolute(folder))


def describe_fault(error: BaseException) -> str:
    """Type and place of an error, and its text only where that cannot contain patient data.

    Only errors of the operating system and missing modules have such a text. Paths are shown
    unless they lie in an archive.
    """
    parts = [type(error).__name__]
    if isinstance(error, OSError) and error.strerror:
        parts.append(str(error.strerror))
        parts += [str(name) for name in (error.filename, error.filename2) if _may_be_shown(name)]
    elif isinstance(error, ImportError) and error.name:
        parts.append(f"module {error.name}")
    elif isinstance(error, MemoryError):
        parts.append("not enough memory")
    text = ": ".join(parts)
    place = _place(error)
    return f"{text} (in {place})" if place else text


def _place(error: BaseException) -> str:
    """Innermost module, function and line of this program in the traceback."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_PROJECT):
            relative = path.relative_to(_PROJECT)
            if relative.parts[0] in _PACKAGES:
                module = ".".join(relative.with_suffix("").parts)
                return f"{module}.{frame.name}, line {frame.lineno}"
    return ""


def _may_be_shown(name: object) -> bool:
    if not isinstance(name, str | os.PathLike):
        return False
    path = _absolute(Path(name))
    return not any(path.is_relative_to(folder) for folder in _archives)


def _absolute(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path))
    except OSError:  # the current folder was removed
        return path
