"""From series to studies: patient, date, selected series and files, or the reason for none.

The only place that decides what the selection means for a study; other tables join its result.
Contradictions between the files of a study are refused or flagged, never resolved by a guess: a
study that names two patients is not scored.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.dicom.duplicates import IDENTITY_COLUMNS, instance_numbers
from cac_core.dicom.header_geometry import POSITION_COLUMNS
from cac_core.dicom.selection import MISSING_PREFIX, NO_MARK, TIE
from cac_core.dicom.series import member_rows
from schemas.codes import FileReason, QualityFlag, SeriesReason, StudyReason
from schemas.instance import DATE_SOURCES

Row = dict[str, Any]
#: Columns that the score row takes from the selected series.
HEADER = ("Manufacturer", "ManufacturerModelName", "KVP", "XRayTubeCurrent", "ConvolutionKernel")
#: Columns of a series that decide about its study.
_OF_SERIES = (
    *("study_key", "SeriesInstanceUID", "Modality", "selected", "reason", "instances_digest"),
    *("ctac_role", *HEADER),
)
_NOT_CT = frozenset((SeriesReason.NOT_CT.value, SeriesReason.NOT_CT_IMAGE.value))
#: Rank of the sources of the date: StudyDate in either form, then its substitutes.
_DATE_RANKS = {source: max(0, rank - 1) for rank, source in enumerate(DATE_SOURCES)}


@dataclass(slots=True)
class _PatientsAndDates:
    """Patients and dates in the files of a study.

    `patients` by series; `dates` as (rank of the source, series, date, source, instances).
    """

    patients: dict[str | None, set[str | None]] = field(default_factory=lambda: defaultdict(set))
    dates: list[tuple[int, str | None, dt.date, str, int]] = field(default_factory=list)


def decide_studies(instances: pa.Table, series: pa.Table, rules_digest: str) -> pa.Table:
    """Return one row per study: its selected series, or the reason for none.

    Parameters
    ----------
    instances : table `schemas.instance.INSTANCES`, rows in any order.
    series : table `schemas.series.SERIES` from `select_series`, rows in any order.
    rules_digest : digest of the selection rules, included in the digest of studies without a
        selected series.

    Returns
    -------
    Columns `study_key`, `patient_key`, `study_date`, `SeriesInstanceUID` of the selected series (or
    null), `reason` (or null) with its `detail`, `quality_flags` (separated by semicolons),
    `instances_digest`, `ctac_role` and `HEADER`; ordered by `study_key`.
    """
    named = _named(instances)
    reasons, flags = study_reasons(series), selection_flags(series)
    by_study: dict[str, list[Row]] = defaultdict(list)
    for row in series.select([*_OF_SERIES]).to_pylist():
        by_study[row["study_key"]].append(row)
    rows = [
        _decide(study, rows, named[study], reasons.get(study), flags.get(study, ()), rules_digest)
        for study, rows in sorted(by_study.items())
    ]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


_TEXTS = ("study_key", "patient_key", "SeriesInstanceUID", "reason", "detail", "quality_flags")
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        ("study_date", pa.date32()),
        ("instances_digest", pa.string()),
        ("ctac_role", pa.string()),
        *((name, pa.float64() if name[0] in "KX" else pa.string()) for name in HEADER),
    ]
)


def _decide(
    study: str,
    series: list[Row],
    named: _PatientsAndDates,
    reason: StudyReason | None,
    flags: Sequence[QualityFlag],
    rules_digest: str,
) -> Row:
    chosen = next((row for row in series if row["selected"]), None)
    patients = set().union(*named.patients.values()) - {None}
    detail = _series_reasons(series)
    if len(patients) > 1:
        chosen, flags = None, ()
        reason, detail = StudyReason.SEVERAL_PATIENTS, f"{len(patients)} patients"
    found = set(flags)
    own = None if chosen is None else chosen["SeriesInstanceUID"]
    if chosen is not None and patients and None in named.patients[own]:
        found.add(QualityFlag.PATIENT_ID_INCOMPLETE)
    date, date_flags = _study_date(named.dates, own)
    patient = next(iter(patients)) if len(patients) == 1 else None
    if chosen is None:
        digest = rejected_digest([row["instances_digest"] for row in series], rules_digest)
    else:
        digest = _selected_digest(chosen, named, patient, date)
    return {
        "study_key": study,
        "patient_key": patient,
        "study_date": date,
        "SeriesInstanceUID": own,
        "reason": None if chosen is not None or reason is None else reason.value,
        "detail": None if chosen is not None else detail or None,
        "quality_flags": ";".join(sorted(found | date_flags)),
        "instances_digest": digest,
        "ctac_role": chosen and chosen["ctac_role"],
        **{name: chosen and chosen[name] for name in HEADER},
    }


def _selected_digest(
    chosen: Row, named: _PatientsAndDates, patient: str | None, date: dt.date | None
) -> str:
    """Digest of the selected series, and of patient and date where other series state them.

    A change in those other series must cause the study to be scored again.
    """
    own, digest = chosen["SeriesInstanceUID"], str(chosen["instances_digest"])
    own_dates = {item[2] for item in named.dates if item[1] == own}
    other_patient = patient is not None and patient not in named.patients[own]
    if other_patient or (date is not None and date not in own_dates):
        return hashlib.sha256(f"{digest} {patient} {date}".encode()).hexdigest()
    return digest


def study_reasons(series: pa.Table) -> dict[str, StudyReason]:
    """Return the reason of each study without a selected series, by study key."""
    reasons: dict[str, StudyReason] = {}
    selected: set[str] = set()
    columns = (series[name].to_pylist() for name in ("study_key", "selected", "reason", "Modality"))
    for study, chosen, reason, modality in zip(*columns, strict=True):
        if chosen:
            selected.add(study)
        elif reason not in _NOT_CT and modality == "CT":
            reasons[study] = StudyReason.NO_CTAC_SERIES
        else:
            reasons.setdefault(study, StudyReason.NO_CT_SERIES)
    return {study: reason for study, reason in reasons.items() if study not in selected}


def selection_flags(series: pa.Table) -> dict[str, tuple[QualityFlag, ...]]:
    """Return the quality flags that the selection raises, sorted, by study key."""
    flags: dict[str, set[QualityFlag]] = {}
    columns = (series[name].to_pylist() for name in ("study_key", "selected", "reason", "evidence"))
    rivals: set[str] = set()
    for study, selected, reason, evidence in zip(*columns, strict=True):
        names = evidence.split(";")
        if selected:
            found = flags.setdefault(study, set())
            if NO_MARK in names:
                found.add(QualityFlag.NO_CTAC_EVIDENCE)
            if any(name.startswith(MISSING_PREFIX) for name in names):
                found.add(QualityFlag.INCOMPLETE_HEADER)
            if TIE in names:
                found.add(QualityFlag.SEVERAL_CTAC_SERIES)
        elif reason == SeriesReason.OUTRANKED.value and NO_MARK not in names:
            rivals.add(study)
    for study in rivals:
        flags[study].add(QualityFlag.SEVERAL_CTAC_SERIES)
    return {study: tuple(sorted(found)) for study, found in flags.items()}


def rejected_digest(digests: Sequence[str], rules_digest: str) -> str:
    """Digest of a study without a selected series, over all its series and the selection rules.

    A new series, a corrected file or a changed rule causes the study to be decided again.
    """
    text = "\n".join([rules_digest, *sorted(digests)])
    return hashlib.sha256(text.encode()).hexdigest()


def chosen_files(instances: pa.Table, studies: pa.Table) -> pa.Table:
    """Return the files of the selected series of each study, including truncated ones.

    Parameters
    ----------
    instances : table `schemas.instance.INSTANCES`.
    studies : rows with `study_key` and `SeriesInstanceUID` of the selected series or null.

    Returns
    -------
    Columns `study_key`, `path_key`, `size_bytes`, `mtime_ns` and `copy_of`. Copies with equal bytes
    are represented by one file; copies with different bytes are all included, with the same number
    in `copy_of`, so that their pixels can be compared. The order does not depend on paths.
    """
    wanted = pc.and_(
        pc.is_in(instances["study_key"], studies["study_key"].combine_chunks()),
        pc.is_in(
            instances["SeriesInstanceUID"],
            studies["SeriesInstanceUID"].drop_null().combine_chunks(),
        ),
    )
    names = (*IDENTITY_COLUMNS, "path_key", "size_bytes", "mtime_ns", "content_digest")
    frame = instances.filter(wanted).select(names).to_pandas()
    pairs = studies.select(["study_key", "SeriesInstanceUID"]).to_pandas()
    frame = frame.merge(pairs, how="inner", on=["study_key", "SeriesInstanceUID"])
    frame["number"] = instance_numbers(frame)
    stands = member_rows(frame)
    own = frame["reason"].isna() & frame["content_digest"].notna()
    standing = frame.loc[own].set_index("number")["content_digest"]
    copy = frame["reason"] == FileReason.DUPLICATE_INSTANCE.value
    differs = copy & (frame["content_digest"] != frame["number"].map(standing))
    differs &= ~frame.duplicated(["number", "content_digest"]) | frame["content_digest"].isna()
    shared = frame.loc[differs, "number"].unique()
    frame["copy_of"] = frame["number"].where(frame["number"].isin(shared)).astype("Int64")
    frame = frame[stands | differs].sort_values(
        [
            "study_key",
            "SOPInstanceUID",
            *POSITION_COLUMNS,
            "copy_of",
            "content_digest",
            "size_bytes",
        ]
    )
    columns = ["study_key", "path_key", "size_bytes", "mtime_ns", "copy_of"]
    return pa.Table.from_pandas(frame[columns], preserve_index=False)


def _named(instances: pa.Table) -> defaultdict[str, _PatientsAndDates]:
    """Patients and dates by study, from all files, usable or not."""
    names = ["study_key", "SeriesInstanceUID", "patient_key", "study_date", "study_date_source"]
    known = instances.filter(pc.is_valid(instances["study_key"]))
    # Copies of an instance count once.
    groups = known.group_by(names).aggregate([("SOPInstanceUID", "count_distinct")])
    found: defaultdict[str, _PatientsAndDates] = defaultdict(_PatientsAndDates)
    columns = (groups[name].to_pylist() for name in (*names, "SOPInstanceUID_count_distinct"))
    for study, series, patient, date, given, count in zip(*columns, strict=True):
        found[study].patients[series].add(patient)
        if date is not None:
            source = given or DATE_SOURCES[0]
            found[study].dates.append((_DATE_RANKS[source], series, date, source, count))
    return found


def _study_date(
    dates: list[tuple[int, str | None, dt.date, str, int]], series: str | None
) -> tuple[dt.date | None, set[QualityFlag]]:
    """Most frequent date, of the selected series where it has one, and flags."""
    if not dates:
        return None, set()
    rank = min(item[0] for item in dates)
    best = [item for item in dates if item[0] == rank]
    flags: set[QualityFlag] = set()
    if rank:
        flags.add(QualityFlag.STUDY_DATE_FROM_SERIES)
    elif len({item[2] for item in best}) > 1:
        flags.add(QualityFlag.SEVERAL_STUDY_DATES)
    best = [item for item in best if series is not None and item[1] == series] or best
    votes: dict[dt.date, int] = defaultdict(int)
    for _, _, date, _, count in best:
        votes[date] += count
    date = min(votes, key=lambda item: (-votes[item], item))
    if {item[3] for item in best if item[2] == date} == {"repaired"}:
        flags.add(QualityFlag.STUDY_DATE_REPAIRED)
    return date, flags


def _series_reasons(series: list[Row]) -> str:
    """Count the reasons of the series that are, or may be, CT."""
    counts: dict[str, int] = defaultdict(int)
    for row in series:
        unusable = row["reason"] == SeriesReason.UNUSABLE_FILES.value
        if not row["selected"] and (row["Modality"] == "CT" or unusable):
            counts[row["reason"]] += 1
    return ", ".join(f"{reason} {number}" for reason, number in sorted(counts.items()))
