"""What a run removes at its end, by the settings under `[retention]`."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import PurePosixPath

from cac_core.cohort.canaries import without_old_nights
from cac_core.cohort.warehouse import Warehouse
from cac_core.cohort.warehouse_files import STAGING, partition
from cac_core.events import event
from cac_core.settings import RetentionSettings
from flows.pages.archive import PLACE
from flows.runtime.known_folders import known_folders, write_list
from flows.runtime.results_folder import withdraw_results
from schemas.canary import CANARIES

_HOUR, _DAY = 3600.0, 86400.0


def keep_archive_page(store: Warehouse, run_id: str) -> None:
    """Keep a copy of the newest archive page under the id of its run.

    Raises
    ------
    CacError
        If the page cannot be read or written.
    """
    data = store.files.read_bytes(store.files.root / "reports" / PLACE)
    if data is not None:
        name = PurePosixPath(PLACE).with_name(f"run-{run_id}.html")
        store.write_page(str(name), data.decode("utf-8"))


def apply_retention(store: Warehouse, settings: RetentionSettings, model: str) -> dict[str, int]:
    """Remove what the settings do not keep, and return the number of removed things by kind.

    Parameters
    ----------
    model : whose unpublished rows are never old: the run that calls this has published them.

    Raises
    ------
    CacError, OSError
        If something cannot be removed.
    """
    removed = Counter(
        {
            "half-written files": _old_files(store, "write-", settings.leftover_hours * _HOUR),
            "archive pages": _old_pages(store, settings.archive_pages),
            "reports": _old_results(store, "cohort report", settings.reports),
            "exports": _old_results(store, "export", settings.exports),
            "rows of canaries": _old_canaries(store, settings.canary_nights),
        }
    )
    if settings.staging_days is not None:
        age = settings.staging_days * _DAY
        removed["unpublished files"] = _old_staging(store, model, age)
    found = {name: n for name, n in removed.items() if n}
    if found:
        event("retention", removed=sum(found.values()))
    return found


def _old_files(store: Warehouse, prefix: str, seconds: float) -> int:
    """Remove files of `_staging` with this beginning of their name, if they are old."""
    folder = store.files.root / STAGING
    return _remove_old(
        store,
        [
            path
            for path in store.files.all_files()
            if path.parent == folder and path.name.startswith(prefix)
        ],
        seconds,
    )


def _old_staging(store: Warehouse, model: str, seconds: float) -> int:
    """Remove old rows of other models, and old parts of linkages that stopped."""
    staging = store.files.root / STAGING
    own = staging / partition(model)
    files = [path for path in store.files.all_files() if staging in path.parents]
    folders = [path for path in files if path.parent != staging and own not in path.parents]
    return _remove_old(store, folders, seconds)


def _remove_old(store: Warehouse, paths: list[PurePosixPath], seconds: float) -> int:
    oldest = dt.datetime.now(dt.UTC).timestamp() - seconds
    old = [path for path in paths if store.files.modified(path) < oldest]
    for path in old:
        store.files.remove(path)
    return len(old)


def _old_pages(store: Warehouse, kept: int) -> int:
    """Remove all but the newest earlier archive pages; names begin with the time of the run."""
    folder = store.files.root / "reports" / PurePosixPath(PLACE).parent
    pages = [
        path
        for path in store.files.all_files()
        if path.parent == folder and path.name.startswith("run-")
    ]
    old = pages[: max(len(pages) - kept, 0)]
    for path in old:
        store.files.remove(path)
    return len(old)


def _old_results(store: Warehouse, holds: str, kept: int | None) -> int:
    """Remove the files of all but the newest folders of a kind of result; those changed stay."""
    if kept is None:
        return 0
    folders = known_folders(store)
    old = [item for item in folders if item.holds == holds][:-kept]
    for item in old:
        if item.path.is_dir():
            withdraw_results(item.path, holds, {})
    if old:
        write_list(store, [item for item in folders if item not in old])
    return len(old)


def _old_canaries(store: Warehouse, nights: int | None) -> int:
    if nights is None or not store.has(CANARIES):
        return 0
    table = store.read(CANARIES)
    kept = without_old_nights(table, nights)
    if kept.num_rows < table.num_rows:
        store.replace(CANARIES, kept)
    return int(table.num_rows - kept.num_rows)
