"""`cac quarantine`: what the last linkage set aside, and what to change."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cac_core.cohort.extract_parts import PartStore
from cac_core.cohort.remedies import set_aside
from cac_core.errors import UsageError
from flows.request import open_warehouse, read_settings
from flows.summaries import QuarantineSummary
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
    found = set_aside(rows)
    return QuarantineSummary(
        warehouse=store.url,
        published=staged is None,
        rows=_lost_rows(rows),
        cells=sum(item.rows for item in found if item.row_kept),
        set_aside=found,
    )


def _lost_rows(quarantine: pa.Table) -> int:
    """Number of rows in quarantine; one can have several reasons."""
    kept = pc.fill_null(quarantine["row_kept"], False)
    lost = quarantine.filter(pc.invert(kept)).group_by(["source_file", "source_line"])
    return int(lost.aggregate([]).num_rows)


def _staged(parts: PartStore) -> pa.Table | None:
    """Quarantine of a linkage that stopped before it published; None if there is none."""
    folder = parts.staging / "quarantine"
    files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
    if not files:
        return None
    return pa.concat_tables(QUARANTINE.completed(pq.ParquetFile(file).read()) for file in files)
