"""What a rescoring run does: index the archive, select the series, compare with the ledger.

`cac score`, `cac score --dry-run` and `cac index` share these functions, so that a dry run reports
exactly what the run would do.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.cohort.fingerprint import require_known_keys
from cac_core.cohort.forgotten import Forgotten
from cac_core.cohort.known_series import keep_series, known_series, series_origin
from cac_core.cohort.warehouse import Warehouse
from cac_core.cohort.worklist import wanted_studies
from cac_core.dicom.archive_io import require_there
from cac_core.dicom.index import ArchiveIndex, index_archive, withheld
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import SelectionRules
from cac_core.dicom.series import series_table
from cac_core.errors import UsageError
from flows.pacs import PacsOfRun, folders_of, open_pacs, with_pacs
from flows.request import (
    PreparedIndexing,
    PreparedScoring,
    ScoringRequest,
    archive_listing,
    prepare_scoring,
)
from flows.runtime.progress import RunProgress
from flows.summaries import ScoringDryRun
from schemas.instance import INSTANCES
from schemas.series import SERIES
from tasks.step import step

_index_archive = step("index-archive")(index_archive)


@step("choose-series")
def _choose_series(instances: pa.Table, rules: SelectionRules) -> pa.Table:
    return select_series(series_table(instances), rules)


@dataclass(frozen=True)
class ArchiveContent:
    """Files of the archive, and table `series` with the CTAC series of each study selected.

    `pacs` are the PACS among the archives, if any. `origin` is what `series` was made from;
    `known` names the tables that the warehouse holds as they are here.
    """

    index: ArchiveIndex
    series: pa.Table
    pacs: PacsOfRun | None
    origin: str
    known: frozenset[str]

    def keep(self, store: Warehouse) -> None:
        """Publish both tables, as far as the warehouse does not hold them already.

        Raises
        ------
        CacError
            If a file cannot be written.
        """
        if INSTANCES.name not in self.known:
            store.replace(INSTANCES, self.index.instances)
        if SERIES.name not in self.known:
            keep_series(store, self.series, self.origin)


@dataclass(frozen=True)
class ScoringPlan:
    """Studies of the archive (`wanted`), those not in the ledger, and those this run scores.

    A study in the ledger whose files changed since counts as not in it; its pixels decide when they
    are read. `unstamped` are scores of an earlier version, which kept no digest of the files.
    """

    wanted: pa.Table
    unscored: pa.Table
    pending: pa.Table
    unstamped: pa.Table

    @property
    def n_skipped(self) -> int:
        """Studies that the ledger holds already."""
        return int(self.wanted.num_rows - self.unscored.num_rows)


def read_archive(prepared: PreparedIndexing, progress: RunProgress) -> ArchiveContent:
    """Read the headers of new and changed files and select the series; writes nothing.

    Raises
    ------
    UsageError
        If the archive holds no CT instance, or the warehouse was made with another secret.
    CacError
        If a folder of the archive is away, before or after its headers were read.
    """
    # A second look: a drive that went away meanwhile would make its studies disappear.
    folders, pacs = folders_of(prepared.roots), open_pacs(prepared, progress)
    require_there(folders)
    previous = prepared.warehouse.read(INSTANCES)
    with progress.counting("headers read") as report:
        index = _index_archive(
            folders,
            prepared.keyring,
            previous=previous,
            workers=prepared.index_workers,
            texts=prepared.texts,
            progress=report,
            scan=archive_listing(prepared.settings, progress.say),
        )
    require_there(folders)
    if pacs is not None:
        index = with_pacs(index, pacs, prepared, previous, progress)
    _require_ct(index)
    require_known_keys(prepared.warehouse, prepared.keyring, index.instances)
    index = withheld(index, Forgotten.read(prepared.warehouse, prepared.keyring).mask)
    return _with_series(index, pacs, prepared, previous)


def _with_series(
    index: ArchiveIndex, pacs: PacsOfRun | None, prepared: PreparedIndexing, previous: pa.Table
) -> ArchiveContent:
    """Choose the series; those of an archive that did not change are known."""
    origin = series_origin(index.instances, prepared.rules.digest)
    series = known_series(prepared.warehouse, origin)
    kept = {INSTANCES.name: index.instances.equals(previous), SERIES.name: series is not None}
    if series is None:
        series = _choose_series(index.instances, prepared.rules)
    known = frozenset(name for name, is_kept in kept.items() if is_kept)
    return ArchiveContent(index, series, pacs, origin, known)


def plan_scoring(prepared: PreparedScoring, content: ArchiveContent) -> ScoringPlan:
    """Compare the studies of the archive with the ledger; writes nothing."""
    wanted = wanted_studies(content.index.instances, content.series, prepared.identity)
    store, model, retry = prepared.warehouse, prepared.weights.model_id, prepared.retry_failed
    missing = store.pending(wanted, model, retry_failed=retry, reasons=prepared.reasons)
    changed = store.changed_files(wanted, model, retry_failed=retry)
    no_stamp = pc.is_null(changed["scored_files"])
    unscored = pa.concat_tables(
        [missing, changed.filter(pc.invert(no_stamp))], promote_options="default"
    )
    unstamped = changed.filter(no_stamp).select(["study_key", "protocol_digest", "files_digest"])
    return ScoringPlan(wanted, unscored, unscored.slice(0, prepared.limit), unstamped)


def dry_run(request: ScoringRequest, progress: RunProgress) -> ScoringDryRun:
    """What `cac score` would do with these arguments; writes nothing."""
    prepared = prepare_scoring(request)
    content = read_archive(prepared.indexing, progress)
    plan = plan_scoring(prepared, content)
    reasons = Counter(reason for reason in plan.pending["reason"].to_pylist() if reason)
    return ScoringDryRun(
        files=content.index.n_files,
        file_reasons=content.index.reasons,
        studies=plan.wanted.num_rows,
        to_score=plan.pending.num_rows - sum(reasons.values()),
        to_reject=dict(reasons),
        left=plan.unscored.num_rows - plan.pending.num_rows,
        skipped=plan.n_skipped,
        warehouse=prepared.warehouse.url,
        model=prepared.weights.model_id,
    )


def _require_ct(index: ArchiveIndex) -> None:
    """Refuse an archive without CT instances."""
    if "CT" in index.instances["Modality"].unique().to_pylist():
        return
    listed = ", ".join(f"{name} {n}" for name, n in sorted(index.reasons.items()))
    raise UsageError(
        f"The archive holds no CT image among its {index.n_files} files"
        + (f" ({listed})." if listed else "."),
        "Name the folder that holds the SPECT/CT studies.",
    )
