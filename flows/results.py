"""`cac export --dicom`: scores as DICOM objects, in a folder or sent to a PACS.

Masks are not in the warehouse. The chosen studies are scored again, by the same model and protocol;
an object is made only where the new score equals the row.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.cohort.deliveries import Deliveries
from cac_core.cohort.scores import scores_of
from cac_core.cohort.warehouse import Warehouse
from cac_core.cohort.worklist import wanted_studies, work_orders
from cac_core.errors import CacError, UsageError
from cac_core.events import event
from cac_core.report.pdf import to_pdf
from cac_core.report.study_page import study_page
from cac_core.scratch import scratch_folder
from cac_core.study import StudyWork
from flows.pages.studies import study_records
from flows.planning import read_archive
from flows.request import PreparedScoring, ScoringRequest, prepare_scoring
from flows.runtime.contained import Contained
from flows.runtime.known_folders import remember_folder
from flows.runtime.progress import RunProgress
from flows.runtime.results_folder import results_folder
from flows.summaries import ResultsSummary
from schemas.codes import DeliveryOutcome, Status

if TYPE_CHECKING:
    from cac_core.dicom.results.send import Receiver
    from flows.result_objects import ObjectsOrder

_HOLDS = "DICOM results"


@dataclass(frozen=True)
class ResultsRequest:
    """Arguments of `cac export --dicom`; None takes the value of the settings file.

    Without `out` nothing is kept; with `send` the objects go to the receiver of the settings, which
    gets none a second time but those of named studies. With `run_id`, only studies that this run
    scored, and those that the receiver did not take before.
    """

    archive: tuple[str, ...] = ()
    warehouse: str | None = None
    config: str | None = None
    model: str | None = None
    studies: tuple[str, ...] = ()
    limit: int | None = None
    out: Path | None = None
    send: bool = False
    run_id: str | None = None


@dataclass(frozen=True)
class _Chosen:
    """A scored study: its work order and its row of `scores`."""

    work: StudyWork
    row: Mapping[str, Any]


def export_results(request: ResultsRequest, progress: RunProgress) -> ResultsSummary:
    """Make the objects of scored studies; a study without has a row with the reason.

    Raises
    ------
    UsageError
        If neither a folder nor a receiver is named, a study has no score, or the optional packages
        are missing.
    CacError
        As `flows.request.prepare_scoring`; if the folder cannot be written.
    """
    require_packages()
    scoring = ScoringRequest(
        request.archive, request.warehouse, request.config, request.model, request.limit
    )
    prepared = prepare_scoring(scoring)
    target = _target(prepared) if request.send else None
    if request.out is None and target is None:
        raise UsageError("Nothing would be kept.", "Name a folder with --out, or add --send.")
    if request.out is not None:
        remember_folder(prepared.warehouse, request.out, _HOLDS)
    chosen = _chosen(prepared, request, target, progress)[: request.limit]
    rows = []
    with progress.counting("studies exported") as report:
        for number, row in enumerate(_exported(prepared, chosen, request.out, target), start=1):
            rows.append(row)
            if report is not None:
                report(number, len(chosen))
    counts = Counter(row["outcome"] for row in rows)
    return ResultsSummary(
        model=prepared.weights.model_id,
        folder=None if request.out is None else str(request.out),
        receiver=None if target is None else target.receiver.kind,
        counts=dict(counts),
        studies=rows,
    )


def send_new(request: ScoringRequest, run_id: str, progress: RunProgress) -> ResultsSummary:
    """Send the objects of the studies that a run scored, and those that wait since an earlier one.

    Raises
    ------
    CacError
        As `export_results`.
    """
    wanted = ResultsRequest(
        request.archive, request.warehouse, request.config, request.model, send=True, run_id=run_id
    )
    result = export_results(wanted, progress)
    progress.say(", ".join(f"{count} {name}" for name, count in sorted(result.counts.items())))
    for row in result.studies:
        if row["reason"]:
            progress.say(f"warning: {row['study_key']}: {row['outcome']}: {row['reason']}")
            event("warning", "warning", reason=f"results_{row['outcome']}")
    return result


def require_packages() -> None:
    """Check that the optional packages are there.

    Raises
    ------
    UsageError
        If one is missing.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise UsageError(
            "DICOM objects need optional packages.", "Install them: pip install 'cac-cohort[pacs]'."
        ) from None


@dataclass(frozen=True)
class _Target:
    """A receiver, and what it was sent."""

    receiver: Receiver
    deliveries: Deliveries


def _target(prepared: PreparedScoring) -> _Target:
    from cac_core.dicom.results.send import receiver_of

    settings = prepared.settings.results
    receiver = receiver_of(settings)
    model = prepared.weights.model_id
    return _Target(
        receiver, Deliveries(prepared.warehouse, model, settings.address, settings.kinds)
    )


def _chosen(
    prepared: PreparedScoring,
    request: ResultsRequest,
    target: _Target | None,
    progress: RunProgress,
) -> list[_Chosen]:
    """The scored studies of the warehouse that the archive holds, or the named ones of them."""
    store, identity = prepared.warehouse, prepared.identity
    table = scores_of(store, prepared.weights.model_id, identity.protocol_digest)
    scored = table.filter(pc.equal(table["status"], Status.SCORED.value)).to_pylist()
    studies = request.studies
    rows = {row["study_key"]: row for row in scored if _is_wanted(row, request, target)}
    unknown = [key for key in studies if key not in rows]
    if unknown:
        raise UsageError(
            f"{store.url} has no score of {prepared.weights.model_id} for {len(unknown)} of the "
            f"studies, the first is {unknown[0]!r}.",
            "Take study keys from the column `study_key` of the table `scores`.",
        )
    if not rows:
        return []
    content = read_archive(prepared.indexing, progress)
    wanted = wanted_studies(content.index.instances, content.series, identity)
    keys = pa.array(list(studies) or list(rows), pa.string())
    wanted = wanted.filter(pc.is_in(wanted["study_key"], keys))
    works = work_orders(wanted, content.index.instances, content.index.paths, content.index.roots)
    return [_Chosen(work, rows[work.study_key]) for work in works]


def _is_wanted(row: Mapping[str, Any], request: ResultsRequest, target: _Target | None) -> bool:
    """Whether objects of a scored study are to be made, as far as its row tells."""
    if request.studies or target is None:
        return True
    if request.run_id is not None:
        return row["run_id"] == request.run_id or target.deliveries.waits(row)
    return request.out is not None or not target.deliveries.is_sent(row)


def _exported(
    prepared: PreparedScoring,
    chosen: Sequence[_Chosen],
    out: Path | None,
    target: _Target | None,
) -> Iterator[dict[str, Any]]:
    """Make, keep and send the objects of each study; yields its row."""
    if not chosen:
        return
    try:
        with _process(prepared) as process:
            for item in chosen:
                row = _exported_one(prepared, process, item, out, target)
                if target is not None:
                    outcome = DeliveryOutcome(row["outcome"])
                    target.deliveries.add(item.row, outcome, row["objects"])
                yield row
    finally:
        if target is not None:
            target.deliveries.close()


def _process(prepared: PreparedScoring) -> Contained:
    """The process that makes the objects: with the limits of scoring, and time for the objects."""
    from dask.utils import parse_bytes

    from flows.result_objects import load_networks
    from tasks.worker import StudyLimits

    scoring = prepared.settings.scoring
    memory = None if scoring.memory_limit == "auto" else parse_bytes(scoring.memory_limit)
    limits = StudyLimits(2 * scoring.timeout_s, memory)
    arguments = (prepared.weights.folder, len(os.sched_getaffinity(0)))
    return Contained(load_networks, arguments, limits.seconds, limits.memory(None))


def _exported_one(
    prepared: PreparedScoring,
    process: Contained,
    item: _Chosen,
    out: Path | None,
    target: _Target | None,
) -> dict[str, Any]:
    from flows.result_objects import made_objects

    row: dict[str, Any] = {"study_key": item.work.study_key, "reason": None, "objects": 0}
    try:
        with scratch_folder("cac-results-") as folder:
            paths = process.run(made_objects, _order(prepared, item, folder))
            row |= {"outcome": "made", "objects": len(paths)}
            if out is not None:
                _keep(out, item.work.study_key, paths)
            if target is not None:
                target.receiver.send(paths)
                row["outcome"] = "sent"
    except UsageError:
        raise
    except CacError as error:
        row |= {"outcome": "not_made" if row["objects"] == 0 else "not_sent"}
        row["reason"] = str(error)
    return row


def _keep(out: Path, key: str, paths: Sequence[Path]) -> None:
    with results_folder(out, _HOLDS, whole=False) as aside:
        place = aside / key
        place.mkdir()
        for path in paths:
            (place / path.name).write_bytes(path.read_bytes())
    (out / key).chmod(0o700)  # the objects name the patient


def _order(prepared: PreparedScoring, item: _Chosen, folder: Path) -> ObjectsOrder:
    from cac_core.dicom.results.stamp import RESEARCH_MARK
    from flows.result_objects import ObjectsOrder

    settings, model = prepared.settings.results, prepared.weights.model_id
    pdf = None
    if "page" in settings.kinds:
        mark = RESEARCH_MARK if settings.research else ""
        pdf = _page(prepared.warehouse, item.work.study_key, model, mark)
    protocol, keyring = prepared.settings.protocol, prepared.indexing.keyring
    return ObjectsOrder(item.work, item.row, protocol, keyring, model, settings, pdf, folder)


def _page(store: Warehouse, key: str, model: str, mark: str) -> bytes:
    (record,) = study_records(store, [key], model)
    return to_pdf(study_page(record, mark=mark), f"Study {key[:12]}")
