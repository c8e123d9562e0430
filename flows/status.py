"""`cac status`: what a warehouse holds."""

from __future__ import annotations

from pathlib import Path

from cac_core.cohort.database import run_sql
from cac_core.cohort.fingerprint import same_secret
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from cac_core.keys import load_keyring
from cac_core.settings import Settings
from flows.request import open_warehouse, read_settings
from flows.summaries import StatusSummary
from schemas.run import RUNS
from schemas.score import SCORES


def warehouse_status(
    warehouse: str | None, config: str | None, page: Path | None = None
) -> StatusSummary:
    """Count the scores of a warehouse per model, and list its last runs.

    Parameters
    ----------
    page : file to write the archive page into; None writes none.

    Raises
    ------
    CacError
        If there is no warehouse at that place, or the page cannot be written.
    """
    settings = read_settings(config)
    store = open_warehouse(warehouse, settings)
    if not store.exists():
        raise CacError(
            f"There is no warehouse at {store.url}.", "Make one with: cac score ARCHIVE -w DIR"
        )
    if page is not None:
        from flows.pages.archive import write_archive_page  # imports matplotlib: one second

        write_archive_page(store, page)
    models = {
        model: run_sql("status", scores=store.read(SCORES, model)).to_pylist()
        for model in store.models()
    }
    runs = run_sql("last_runs", runs=store.read(RUNS)).to_pylist()
    return StatusSummary(
        warehouse=store.url, models=models, runs=runs, secret=_secret(store, settings)
    )


def _secret(store: Warehouse, settings: Settings) -> str:
    """Whether the secret of this shell is that of the warehouse; status itself needs none."""
    if store.fingerprint() is None:
        return "no_fingerprint"
    try:
        keyring = load_keyring(settings.key_file)
    except CacError:
        return "not_given"
    return "same" if same_secret(store, keyring) else "another"
