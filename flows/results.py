"""`cac export --dicom`: scores as DICOM objects, in a folder or sent to a PACS.

Masks are not in the warehouse. The chosen studies are scored again, by the same model and protocol;
an object is made only where the new score equals the row.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.cohort.scores import scores_of
from cac_core.cohort.warehouse import Warehouse
from cac_core.cohort.worklist import wanted_studies, work_orders
from cac_core.dicom.volume import CtVolume
from cac_core.errors import CacError, UsageError
from cac_core.events import event
from cac_core.report.pdf import to_pdf
from cac_core.report.study_page import study_page
from cac_core.scratch import scratch_folder
from cac_core.storage import archive_file
from cac_core.study import StudyWork, score_study
from flows.pages.studies import study_records
from flows.planning import read_archive
from flows.request import PreparedScoring, ScoringRequest, prepare_scoring
from flows.runtime.known_folders import remember_folder
from flows.runtime.progress import RunProgress
from flows.runtime.results_folder import results_folder
from flows.summaries import ResultsSummary
from schemas.codes import Status

if TYPE_CHECKING:
    from cac_core.dicom.results.send import Receiver
    from cac_core.model.cascade import Cascade

#: Columns that must be the same when a study is scored again; numbers to the last digits.
_SAME = ("cac_category", "n_lesions")
_CLOSE = ("agatston", "agatston_noncoronary", "calcium_volume_mm3", "heart_volume_ml")
_HOLDS = "DICOM results"


@dataclass(frozen=True)
class ResultsRequest:
    """Arguments of `cac export --dicom`; None takes the value of the settings file.

    Without `out` nothing is kept; with `send` the objects go to the receiver of the settings.
    With `run_id`, only studies that this run scored.
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
    receiver = _receiver(prepared, request.send)
    if request.out is None and receiver is None:
        raise UsageError("Nothing would be kept.", "Name a folder with --out, or add --send.")
    if request.out is not None:
        remember_folder(prepared.warehouse, request.out, _HOLDS)
    chosen = _chosen(prepared, request, progress)[: request.limit]
    rows = []
    with progress.counting("studies exported") as report:
        for number, row in enumerate(_exported(prepared, chosen, request.out, receiver), start=1):
            rows.append(row)
            if report is not None:
                report(number, len(chosen))
    counts = Counter(row["outcome"] for row in rows)
    return ResultsSummary(
        model=prepared.weights.model_id,
        folder=None if request.out is None else str(request.out),
        receiver=None if receiver is None else receiver.kind,
        counts=dict(counts),
        studies=rows,
    )


def send_new(request: ScoringRequest, run_id: str, progress: RunProgress) -> ResultsSummary:
    """Send the objects of the studies that a run scored; says which were not sent.

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


def _receiver(prepared: PreparedScoring, send: bool) -> Receiver | None:
    if not send:
        return None
    from cac_core.dicom.results.send import receiver_of

    return receiver_of(prepared.settings.results)


def _chosen(
    prepared: PreparedScoring, request: ResultsRequest, progress: RunProgress
) -> list[_Chosen]:
    """The scored studies of the warehouse that the archive holds, or the named ones of them."""
    store, identity = prepared.warehouse, prepared.identity
    table = scores_of(store, prepared.weights.model_id, identity.protocol_digest)
    scored = table.filter(pc.equal(table["status"], Status.SCORED.value)).to_pylist()
    studies, run = request.studies, request.run_id
    rows = {row["study_key"]: row for row in scored if run in (None, row["run_id"])}
    unknown = [key for key in studies if key not in rows]
    if unknown:
        raise UsageError(
            f"{store.url} has no score of {prepared.weights.model_id} for {len(unknown)} of the "
            f"studies, the first is {unknown[0]!r}.",
            "Take study keys from the column `study_key` of the table `scores`.",
        )
    content = read_archive(prepared.indexing, progress)
    wanted = wanted_studies(content.index.instances, content.series, identity)
    keys = pa.array(list(studies) or list(rows), pa.string())
    wanted = wanted.filter(pc.is_in(wanted["study_key"], keys))
    works = work_orders(wanted, content.index.instances, content.index.paths, content.index.roots)
    return [_Chosen(work, rows[work.study_key]) for work in works]


def _exported(
    prepared: PreparedScoring,
    chosen: Sequence[_Chosen],
    out: Path | None,
    receiver: Receiver | None,
) -> Iterator[dict[str, Any]]:
    """Make, keep and send the objects of each study; yields its row."""
    if not chosen:
        return
    from cac_core.model.cascade import Cascade

    threads = len(os.sched_getaffinity(0))
    cascade = Cascade.load(prepared.weights.folder, threads=threads)
    for item in chosen:
        row: dict[str, Any] = {"study_key": item.work.study_key, "reason": None, "objects": 0}
        try:
            with scratch_folder("cac-results-") as folder:
                paths = _objects(prepared, cascade, item, folder)
                row |= {"outcome": "made", "objects": len(paths)}
                if out is not None:
                    _keep(out, item.work.study_key, paths)
                if receiver is not None:
                    receiver.send(paths)
                    row["outcome"] = "sent"
        except UsageError:
            raise
        except CacError as error:
            row |= {"outcome": "not_made" if row["objects"] == 0 else "not_sent"}
            row["reason"] = str(error)
        yield row


def _keep(out: Path, key: str, paths: Sequence[Path]) -> None:
    with results_folder(out, _HOLDS, whole=False) as aside:
        place = aside / key
        place.mkdir()
        for path in paths:
            (place / path.name).write_bytes(path.read_bytes())
    (out / key).chmod(0o700)  # the objects name the patient


def _objects(
    prepared: PreparedScoring, cascade: Cascade, item: _Chosen, folder: Path
) -> list[Path]:
    from cac_core.dicom.results.build import ScoredVolume, write_objects
    from cac_core.dicom.results.stamp import RESEARCH_MARK, ResultStamp

    kept: list[Any] = []
    result = score_study(
        item.work,
        cascade,
        prepared.settings.protocol,
        previews=False,
        keep=lambda volume, marks: kept.extend((volume, marks.heart_mask, marks.calcium_class)),
    )
    _require_same(result.score, item.row, kept[0] if kept else None)
    settings = prepared.settings.results
    files = [archive_file(stamp.path, stamp.size_bytes) for stamp in item.work.files]

    def stamp_of(series_uid: str) -> ResultStamp:
        return ResultStamp(
            prepared.indexing.keyring, series_uid, item.row, prepared.weights.model_id,
            settings.manufacturer, settings.institution, settings.research,
        )  # fmt: skip

    pdf = None
    if "page" in settings.kinds:
        mark = RESEARCH_MARK if settings.research else ""
        pdf = _page(prepared.warehouse, item.work.study_key, prepared.weights.model_id, mark)
    return write_objects(ScoredVolume(files, *kept), stamp_of, pdf, settings.kinds, folder)


def _page(store: Warehouse, key: str, model: str, mark: str) -> bytes:
    (record,) = study_records(store, [key], model)
    return to_pdf(study_page(record, mark=mark), f"Study {key[:12]}")


def _require_same(
    again: Mapping[str, Any], row: Mapping[str, Any], volume: CtVolume | None
) -> None:
    """Refuse objects of a study whose pixels or score are now others."""
    if again["status"] != Status.SCORED.value or volume is None:
        raise CacError(f"The study is not scored any more: {again['reason']}.")
    differs = [] if volume.has_pixels(row["pixel_digest"]) else ["pixel_digest"]
    differs += [name for name in _SAME if again[name] != row[name]]
    differs += [name for name in _CLOSE if not math.isclose(again[name], row[name], rel_tol=1e-9)]
    if differs:
        raise CacError(
            f"Scored again, the study differs from its row in {', '.join(differs)}.",
            "Run `cac score`; `cac doctor` checks the installation.",
        )
