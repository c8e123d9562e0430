"""`cac quarantine`: what the last linkage set aside, and what to change."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cac_core.cohort.extract_parts import PartStore
from cac_core.cohort.remedies import set_aside
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import UsageError
from flows.linkage_summaries import QuarantineSummary
from flows.request import open_warehouse, read_settings
from schemas.linkage import LINKAGES, QUARANTINE


def quarantined(warehouse: str | None, config: str | None) -> QuarantineSummary:
    """Rows and cells in quarantine, of a linkage that stopped or else of the published one.

    Raises
    ------
    UsageError
        If nothing was linked yet.
    """
    settings = read_settings(config)
    store = open_warehouse(warehouse, settings)
    staged = _staged(store.parts(settings.linkage.registry))
    if staged is None and not store.has(LINKAGES):
        raise UsageError(
            f"The warehouse {store.url} has no linkage.",
            "Run `cac link`; `--dry-run` shows what it would set aside.",
        )
    rows = store.read(QUARANTINE) if staged is None else staged
    found = set_aside(rows, date_formats(store) if staged is None else {})
    return QuarantineSummary(
        warehouse=store.url,
        published=staged is None,
        rows=sum(in_quarantine(rows).values()),
        cells=sum(item.rows for item in found if item.row_kept),
        set_aside=found,
    )


def in_quarantine(quarantine: pa.Table) -> dict[str, int]:
    """Lines in quarantine by extract; one can have several reasons.

    Parameters
    ----------
    quarantine : the table, with what was found while reading and while linking.
    """
    lost = lost_rows(quarantine).group_by(["source_file", "source_line"]).aggregate([])
    counted = lost.group_by("source_file").aggregate([([], "count_all")])
    return {row["source_file"]: row["count_all"] for row in counted.to_pylist()}


def lost_rows(quarantine: pa.Table) -> pa.Table:
    """Rows of the table `quarantine` about lines that are not used."""
    return quarantine.filter(pc.invert(pc.fill_null(quarantine["row_kept"], False)))


def date_formats(store: Warehouse) -> dict[str, list[str]]:
    """Date formats of the mapping of the last linkage, by source."""
    runs = store.columns(LINKAGES, ("started_at", "mapping")).sort_by("started_at")
    mapping = json.loads(runs["mapping"][-1].as_py())
    return {source["name"]: source["dates"] for source in mapping["source"]}


def _staged(parts: PartStore) -> pa.Table | None:
    """Quarantine of a linkage that stopped before it published; None if there is none."""
    folder = parts.staging / "quarantine"
    files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
    if not files:
        return None
    return pa.concat_tables(QUARANTINE.completed(pq.ParquetFile(file).read()) for file in files)
