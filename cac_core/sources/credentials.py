"""Credentials of a PACS: from the environment or private files, never from settings or URLs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cac_core.errors import UsageError

USER, PASSWORD, TOKEN = "CAC_PACS_USER", "CAC_PACS_PASSWORD", "CAC_PACS_TOKEN"


def secret(variable: str, file: Path | None) -> str | None:
    """The secret in a file, else that of the environment; None if neither is given.

    Raises
    ------
    UsageError
        If the file cannot be read, is empty, or every user of the machine can access it.
    """
    if file is None:
        return os.environ.get(variable, "").strip() or None
    try:
        require_private(file)
        found = file.read_text("utf-8").strip()
    except (OSError, UnicodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(
            f"The file {file} with a secret of the PACS cannot be read ({cause}).",
            f"Check the path and its owner, or use {variable}.",
        ) from None
    if not found:
        raise UsageError(f"The file {file} with a secret of the PACS is empty.", "Write it again.")
    return found


def require_private(file: Path) -> None:
    """Refuse a file with a secret that other users can read or write.

    Raises
    ------
    UsageError
        If they can.
    OSError
        If it cannot be looked at.
    """
    if file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise UsageError(
            f"Every user of this machine can access the file {file}.",
            f"Restrict it with: chmod o-rwx {file}",
        )
