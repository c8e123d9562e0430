"""The archive page: in the warehouse after each run, or in the file of `cac status --page`."""

from __future__ import annotations

from pathlib import Path

from cac_core.cohort.archive import archive_state
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError, UsageError

#: Path of the page below `reports/` of the warehouse.
PLACE = "archive/index.html"
#: Identifies pages of this program.
_GENERATOR = b'<meta name="generator" content="cac-cohort">'


def publish_archive_page(store: Warehouse) -> str:
    """Build the page from the warehouse and store it there; returns its address.

    Raises
    ------
    CacError
        If a table cannot be read or the page cannot be written.
    """
    return store.write_page(PLACE, _page(store))


def write_archive_page(store: Warehouse, path: Path) -> None:
    """Build the page from the warehouse and write it to a file; replaces an older page.

    Raises
    ------
    UsageError
        If the file exists and is not a page of this program.
    CacError
        If a table cannot be read or the file cannot be written.
    """
    try:
        ours = not path.exists() or _GENERATOR in path.read_bytes()[:4096]
    except OSError as error:
        raise _unwritable(path, error) from None
    if not ours:
        raise UsageError(
            f"{path} exists and is not a page of this program.", "Name another with --page."
        )
    text = _page(store)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from None


def _page(store: Warehouse) -> str:
    # Imports matplotlib, which takes a second: a run scores first.
    from cac_core.report.archive_page import archive_page

    return archive_page(archive_state(store))


def _unwritable(path: Path, error: OSError) -> CacError:
    return CacError(
        f"The page {path} cannot be written ({error.strerror}).", "Name another with --page."
    )
