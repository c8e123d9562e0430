"""Results in a warehouse at a URL: as `results_folder`, by way of a folder of this machine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError, UsageError
from cac_core.scratch import scratch_folder
from flows.runtime.results_folder import LIST, require_replaceable, results_folder, write_files

#: Written after the files that it refers to.
_FIRST_PAGE = "index.html"


def require_replaceable_in_store(store: Warehouse, name: str, holds: str) -> None:
    """Check that `reports/<name>` of a warehouse can take a complete result.

    Raises
    ------
    UsageError
        As `require_replaceable`.
    CacError
        If the store cannot be used.
    """
    with _mirror(store, name) as (mirror, _):
        require_replaceable(mirror, holds)


@contextlib.contextmanager
def results_in_store(store: Warehouse, name: str, holds: str) -> Iterator[Path]:
    """A temporary folder whose files replace `reports/<name>` of a warehouse at its end.

    Files are written before the page that refers to them, and removed after it; an upload that is
    interrupted is completed by the next one.

    Raises
    ------
    UsageError
        As `results_folder`.
    CacError
        If the store cannot be used.
    """
    with _mirror(store, name) as (mirror, before):
        with results_folder(mirror, holds) as folder:
            yield folder
        _replace(store, name, before, _content(mirror))


@contextlib.contextmanager
def _mirror(store: Warehouse, name: str) -> Iterator[tuple[Path, dict[str, bytes]]]:
    """A private folder with the files of a result, and these files."""
    with scratch_folder("cac-results-") as scratch:
        mirror = scratch / "results"
        before = store.read_results(name)
        write_files(before, mirror)
        try:
            yield mirror, before
        except CacError as error:
            place = f"{store.url}/reports/{name}"
            kind = UsageError if isinstance(error, UsageError) else CacError
            raise kind(error.what.replace(str(mirror), place), error.hint) from None


def _content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _replace(
    store: Warehouse, name: str, before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    """Write what is new, remove what is gone; the list is valid at every moment."""
    changed = [path for path, data in after.items() if before.get(path) != data]
    if not changed:
        return
    store.write_result(name, LIST, _both_lists(before.get(LIST), after[LIST]))
    for path in sorted(changed, key=lambda path: path == _FIRST_PAGE):
        if path != LIST:
            store.write_result(name, path, after[path])
    for path in before.keys() - after.keys():
        store.remove_result(name, path)
    store.write_result(name, LIST, after[LIST])


def _both_lists(old: bytes | None, new: bytes) -> bytes:
    """A list in which a file may be the old or the new one."""
    results = json.loads(new)["results"]
    known = json.loads(old)["results"] if old else {}
    for holds, files in known.items():
        both = results.setdefault(holds, {})
        for path, digests in files.items():
            both[path] = sorted({*digests, *both.get(path, ())})
    return json.dumps({"results": results}).encode()
