"""What a run has to do: the wanted identities, and work orders for those not done yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cac_core.cohort.store import run_sql
from cac_core.errors import CacError, StudyError
from cac_core.study import FileStamp, StudyResult, StudyWork, unscored
from cac_core.version import __version__
from schemas.codes import QualityFlag, StudyReason

#: Evidence names of the selection that become quality flags of the score row.
_FLAGGED_EVIDENCE = {
    QualityFlag.NO_CTAC_EVIDENCE.value: QualityFlag.NO_CTAC_EVIDENCE,
    QualityFlag.INCOMPLETE_HEADER.value: QualityFlag.INCOMPLETE_HEADER,
}
_HEADER = ("Manufacturer", "ManufacturerModelName", "KVP", "XRayTubeCurrent", "ConvolutionKernel")


@dataclass(frozen=True, slots=True)
class Identity:
    """The part of a score's identity that is the same for all studies of a run."""

    model_digest: str
    protocol_digest: str
    rules_digest: str
    core_version: str = __version__


def wanted_studies(instances: pa.Table, series: pa.Table, identity: Identity) -> pa.Table:
    """One row per study of the archive with the identity its score would have.

    A study without a chosen series is wanted too: its identity spans all its instances and the
    selection rules, so that a late series or a mended rule brings it back.

    Returns
    -------
    Columns `study_key`, `patient_key`, `study_date`, `SeriesInstanceUID` of the chosen series (or
    null), `reason` (or null), `instances_digest`, `model_digest`, `protocol_digest`,
    `core_version`, header and selection columns; ordered by `study_key`.
    """
    studies = run_sql("wanted", instances=instances, series=series)
    digests = [
        digest if digest is not None else _fallback_digest(every, identity.rules_digest)
        for digest, every in zip(
            studies["chosen_digest"].to_pylist(), studies["all_digests"].to_pylist(), strict=True
        )
    ]
    rows = studies.num_rows
    columns = {
        "instances_digest": pa.array(digests, pa.string()),
        "model_digest": pa.array([identity.model_digest] * rows, pa.string()),
        "protocol_digest": pa.array([identity.protocol_digest] * rows, pa.string()),
        "core_version": pa.array([identity.core_version] * rows, pa.string()),
    }
    studies = studies.drop_columns(["chosen_digest", "all_digests"])
    for name, column in columns.items():
        studies = studies.append_column(name, column)
    return studies


def work_orders(
    studies: pa.Table, instances: pa.Table, paths: Mapping[str, Path]
) -> list[StudyWork]:
    """Work orders for the given rows of `wanted_studies`, in their order."""
    chosen = run_sql("chosen_files", studies=studies, instances=instances)
    stamps: dict[str, list[FileStamp]] = {}
    for row in chosen.to_pylist():
        path = paths.get(row["path_key"])
        if path is None:
            raise CacError(
                "The index names a file that the archive no longer lists.",
                "Run the same command again; it reads the folder anew.",
            )
        stamp = FileStamp(str(path), row["size_bytes"], row["mtime_ns"])
        stamps.setdefault(row["study_key"], []).append(stamp)
    return [_order(row, tuple(stamps.get(row["study_key"], ()))) for row in studies.to_pylist()]


def rejected_unread(work: StudyWork) -> StudyResult | None:
    """The row of a study without a chosen series; None for a study that has one."""
    if work.files:
        return None
    reason = StudyReason(str(work.header["reason"]))
    bare = StudyWork(
        work.study_key,
        work.patient_key,
        work.study_date,
        (),
        work.instances_digest,
        flags=work.flags,
    )
    return unscored(bare, StudyError(reason, str(work.header["series_reasons"] or "")))


def _order(row: Mapping[str, object], stamps: tuple[FileStamp, ...]) -> StudyWork:
    evidence = set(str(row["evidence"] or "").split(";"))
    flags = {flag for name, flag in _FLAGGED_EVIDENCE.items() if name in evidence}
    if row["n_outranked"]:
        flags.add(QualityFlag.SEVERAL_CTAC_SERIES)
    header = {name: row[name] for name in (*_HEADER, "ctac_role")}
    if not stamps:
        header |= {name: row[name] for name in ("reason", "series_reasons")}
    return StudyWork(
        study_key=str(row["study_key"]),
        patient_key=row["patient_key"],  # type: ignore[arg-type]
        study_date=row["study_date"],  # type: ignore[arg-type]
        files=stamps,
        instances_digest=str(row["instances_digest"]),
        header=header,
        flags=tuple(sorted(flags)),
    )


def _fallback_digest(digests: Sequence[str], rules_digest: str) -> str:
    text = "\n".join([rules_digest, *sorted(digests)])
    return hashlib.sha256(text.encode()).hexdigest()
