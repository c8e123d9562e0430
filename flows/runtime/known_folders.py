"""Folders outside a warehouse that hold results made from it, so that they can be removed.

The warehouse keeps their list in `results-folders.json`.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path

from cac_core.cohort.warehouse import Warehouse

#: File of the list, in the warehouse.
LIST = "results-folders.json"


@dataclass(frozen=True, slots=True)
class KnownFolder:
    """A folder of results, the kind of result, and when one was last written there."""

    path: Path
    holds: str
    written_at: str


def remember_folder(store: Warehouse, folder: Path, holds: str) -> None:
    """Add a folder to the list, before something is written there.

    Raises
    ------
    CacError
        If the list cannot be written.
    """
    path = folder.absolute()
    others = [item for item in known_folders(store) if (item.path, item.holds) != (path, holds)]
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    write_list(store, [*others, KnownFolder(path, holds, now)])


def known_folders(store: Warehouse) -> list[KnownFolder]:
    """The folders of the list, the one written last at the end; empty without a list."""
    data = store.files.read_bytes(store.files.root / LIST)
    try:
        entries = json.loads(data or b'{"folders": []}')["folders"]
        found = [KnownFolder(Path(path), holds, written) for path, holds, written in entries]
    except (ValueError, KeyError, TypeError):
        return []
    return sorted(found, key=lambda item: item.written_at)


def write_list(store: Warehouse, folders: list[KnownFolder]) -> None:
    """Replace the list.

    Raises
    ------
    CacError
        If it cannot be written.
    """
    entries = [[str(item.path), item.holds, item.written_at] for item in folders]
    text = json.dumps({"folders": entries}, indent=1) + "\n"
    store.files.write(
        store.files.root / LIST, lambda stream: stream.write(text.encode("utf-8", "replace"))
    )
