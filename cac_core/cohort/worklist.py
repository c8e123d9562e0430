"""Work of a run: the wanted score of each study, and work orders for those to be scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cac_core.cohort.database import run_sql
from cac_core.dicom.studies import HEADER, chosen_files, decide_studies
from cac_core.errors import CacError, StudyError
from cac_core.storage import ArchiveFile, place_of
from cac_core.study import FileStamp, ScoredContent, StudyResult, StudyWork, unscored
from cac_core.version import __version__
from schemas.codes import QualityFlag, StudyReason


@dataclass(frozen=True, slots=True)
class Identity:
    """The part of a score's identity that is the same for all studies of a run."""

    model_digest: str
    protocol_digest: str
    rules_digest: str
    core_version: str = __version__


def wanted_studies(instances: pa.Table, series: pa.Table, identity: Identity) -> pa.Table:
    """One row per study of the archive, with the identity that its score would have.

    Returns
    -------
    Columns of `cac_core.dicom.studies.decide_studies` and `model_digest`, `protocol_digest`,
    `core_version`, `files_digest` (null without a selected series); ordered by `study_key`.
    """
    studies = decide_studies(instances, series, identity.rules_digest)
    for name in ("model_digest", "protocol_digest", "core_version"):
        column = pa.array([getattr(identity, name)] * studies.num_rows, pa.string())
        studies = studies.append_column(name, column)
    stamps = run_sql("file_stamps", studies=studies, instances=instances)
    digests = dict(zip(*(stamps[name].to_pylist() for name in stamps.column_names), strict=True))
    column = pa.array([digests.get(key) for key in studies["study_key"].to_pylist()], pa.string())
    return studies.append_column("files_digest", column)


def work_orders(
    studies: pa.Table,
    instances: pa.Table,
    paths: Mapping[str, ArchiveFile],
    roots: Sequence[Path | str] = (),
) -> list[StudyWork]:
    """Work orders for rows of `wanted_studies`, in the same order.

    Parameters
    ----------
    studies, instances : rows of `wanted_studies`, and table `instances`.
    paths : path of each `path_key`.
    roots : folders of the archive.
    """
    named = tuple(map(str, roots))
    stamps: dict[str, list[FileStamp]] = {}
    for row in chosen_files(instances, studies).to_pylist():
        path = paths.get(row["path_key"])
        if path is None:
            raise CacError(
                "The index names a file that the archive no longer lists.",
                "Run the command again: it reads the folder again.",
            )
        stamp = FileStamp(place_of(path), row["size_bytes"], row["mtime_ns"], row["copy_of"])
        stamps.setdefault(row["study_key"], []).append(stamp)
    return [
        _order(row, tuple(stamps.get(row["study_key"], ())), named) for row in studies.to_pylist()
    ]


def rejected_unread(work: StudyWork) -> StudyResult | None:
    """The result of a study without a selected series; None if it has one."""
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
    return unscored(bare, StudyError(reason, str(work.header["detail"] or "")))


def _order(
    row: Mapping[str, object], stamps: tuple[FileStamp, ...], roots: tuple[str, ...]
) -> StudyWork:
    header = {name: row[name] for name in (*HEADER, "ctac_role")}
    if not stamps:
        header |= {name: row[name] for name in ("reason", "detail")}
    return StudyWork(
        study_key=str(row["study_key"]),
        patient_key=row["patient_key"],  # type: ignore[arg-type]
        study_date=row["study_date"],  # type: ignore[arg-type]
        files=stamps,
        instances_digest=str(row["instances_digest"]),
        header=header,
        flags=tuple(QualityFlag(name) for name in str(row["quality_flags"]).split(";") if name),
        roots=_roots_of(stamps, roots),
        files_digest=row["files_digest"] if stamps else None,  # type: ignore[arg-type]
        scored=_scored(row),
    )


def _scored(row: Mapping[str, object]) -> ScoredContent | None:
    """What was scored of a study whose files changed since; None for one that is to be scored."""
    pixels = row.get("scored_pixels")
    if pixels is None:
        return None
    names = ("scored_kvp", "scored_thickness", "scored_kernel")
    return ScoredContent(str(pixels), *(row[name] for name in names))  # type: ignore[arg-type]


def _roots_of(stamps: tuple[FileStamp, ...], roots: tuple[str, ...]) -> tuple[str, ...]:
    """The folders that hold the files of a study; all of them where links lead elsewhere."""
    holding = tuple(
        root for root in roots if any(Path(stamp.path).is_relative_to(root) for stamp in stamps[:1])
    )
    return holding or roots
