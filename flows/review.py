"""`cac status --review`: the studies that a person should look at, and their pages."""

from __future__ import annotations

from pathlib import Path

from cac_core.cohort.scores import chosen_model
from cac_core.cohort.warehouse import Warehouse
from cac_core.model.weights import model_id_of
from flows.request import open_warehouse, read_settings
from flows.summaries import ReviewList, Rows
from schemas.score import SCORES

_SHOWN = (
    "study_key", "agatston", "agatston_low", "agatston_high", "cac_category", "review_reasons",
    "quality_flags",
)  # fmt: skip


def studies_to_review(
    warehouse: str | None, config: str | None, model: str | None = None, folder: Path | None = None
) -> ReviewList:
    """Studies whose newest score needs review, those with the highest scores first.

    Parameters
    ----------
    model : id of a model or folder of weights; may be left out if the warehouse has one model only.
    folder : also write the page of each of these studies there.

    Raises
    ------
    CacError
        If there is no score, several models and none is named, or the folder cannot be written.
    """
    store = open_warehouse(warehouse, read_settings(config))
    chosen = chosen_model(store, None if model is None else model_id_of(model))
    studies = _marked(store, chosen)
    if folder is not None:
        from flows.pages.studies import write_pages  # imports matplotlib

        write_pages(store, [row["study_key"] for row in studies], folder, chosen)
    return ReviewList(store.url, chosen, studies, None if folder is None else str(folder))


def _marked(store: Warehouse, model: str) -> Rows:
    columns = (*_SHOWN, "needs_review", "scored_at")
    rows = sorted(
        store.columns(SCORES, columns, model).to_pylist(), key=lambda row: row["scored_at"]
    )
    newest = {row["study_key"]: row for row in rows}
    marked = [row for row in newest.values() if row["needs_review"]]
    marked.sort(key=lambda row: (-row["agatston"], row["study_key"]))
    return [{name: row[name] for name in _SHOWN} for row in marked]
