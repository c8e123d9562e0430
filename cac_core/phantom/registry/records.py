"""A synthetic registry: people of `cohort` with their records, planted faults, and the truth.

Records are generated once, as a hospital knows them; `dialects` writes them in the formats of three
sites. The truth is computed from the cohort, never from the records.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from cac_core.categories import cac_category
from cac_core.keys import Keyring
from cac_core.phantom.registry.patients import Cohort, draw_cohort
from cac_core.phantom.registry.stays import (
    COVERAGE_END,
    Death,
    History,
    Stay,
    draw_faulty_stays,
    draw_records,
)
from schemas.codes import FlowStep

EARLY_DAYS = 90
OUTCOMES: dict[str, tuple[str, ...]] = {
    "mace": ("death", "mi", "unstable_angina", "revascularisation"),
    "death_mi": ("death", "mi"),
    "death": ("death",),
    "mace_no_early_revascularisation": ("death", "mi", "unstable_angina", "revascularisation"),
}
VISUAL_GRADES = ("absent", "equivocal", "present", "extensive")
#: Additional people outside the analysis, as a share of those in it, by the reason.
_OTHERS = {
    "prior_mi": 0.02,
    "prior_bypass": 0.02,
    "old_stent": 0.01,
    "no_study": 0.03,
    "no_score": 0.02,
    "no_record": 0.03,
    "no_sex": 0.01,
    "two_deaths": 0.005,
    "moved_before": 0.005,
    "two_records": 0.003,
}
_STEP = {
    "prior_mi": FlowStep.KNOWN_CAD,
    "prior_bypass": FlowStep.KNOWN_CAD,
    "old_stent": FlowStep.KNOWN_CAD,
    "no_study": FlowStep.NO_CTAC_STUDY,
    "no_score": FlowStep.NO_SCORE,
    "no_record": FlowStep.NO_CLINICAL_RECORD,
    "no_sex": FlowStep.MISSING_COVARIATE,
    "two_deaths": FlowStep.CONFLICTING_DEATH,
    "moved_before": FlowStep.NO_FOLLOW_UP,
    "two_records": FlowStep.NO_CLINICAL_RECORD,
}


@dataclass(frozen=True, slots=True)
class Visit:
    """A scan in the archive; `archived_id` is its PatientID, which may be mistyped.

    `sex` and `birth_date` are those of the headers, if there is an archive.
    """

    patient_id: str
    archived_id: str
    accession_number: str
    study_instance_uid: str
    study_date: dt.date
    scored: bool = True
    sex: str | None = None
    birth_date: dt.date | None = None


@dataclass
class Registry:
    """The content of the extracts of all sites.

    `clinical`, `perfusion`, `readings`: canonical rows; `deaths`: (patient, date); `follow_up`:
    (patient, last day of coverage, day of emigration); `truth`: expected result of the linkage, one
    row per patient; `agatston`: score by StudyInstanceUID; `expert_agatston`: the expert's score of
    generated visits; `n_faulty_stays`: stays that the linkage must quarantine.
    """

    visits: list[Visit] = field(default_factory=list)
    clinical: list[dict[str, Any]] = field(default_factory=list)
    perfusion: list[dict[str, Any]] = field(default_factory=list)
    readings: list[dict[str, Any]] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    follow_up: list[tuple[str, dt.date | None, dt.date | None]] = field(default_factory=list)
    truth: list[dict[str, Any]] = field(default_factory=list)
    agatston: dict[str, float] = field(default_factory=dict)
    expert_agatston: dict[str, float] = field(default_factory=dict)
    n_faulty_stays: int = 0
    coverage_end: dt.date = COVERAGE_END


def make_registry(
    n: int, seed: int, *, dirt: bool = True, archive: Sequence[tuple[Visit, float]] = ()
) -> Registry:
    """Draw a registry.

    Parameters
    ----------
    n : number of people in the analysis; further people outside it are added. Ignored with an
        archive, which determines the people.
    dirt : plant duplicates, transfers, impossible dates, unknown codes and people who are in one
        source only.
    archive : visits of a scored archive with their Agatston scores; default: generated visits.
    """
    rng = np.random.default_rng([seed, n, 71])
    registry = Registry()
    by_patient = _by_patient(archive)
    cohort = draw_cohort(len(by_patient) or n, seed)
    if archive:  # late enough for all follow-up
        newest = max(visit.study_date for visit, _ in archive)
        registry.coverage_end = newest + dt.timedelta(days=int(cohort.end_days.max()))
    order: Sequence[int] = range(cohort.n)
    if by_patient:  # the same order of scores in archive and cohort
        ranked = np.argsort([max(score for _, score in group) for group in by_patient])
        order = [int(i) for i in np.argsort(cohort.dl_agatston)[np.argsort(ranked)]]
    for rank, i in enumerate(order):
        visits = by_patient[rank] if by_patient else None
        if visits is not None:
            _as_in_the_headers(cohort, i, visits[0][0])
        _enrol(registry, cohort, i, rng, visits, "included", dirt)
    if dirt and not by_patient:
        others = draw_cohort(max(n // 4, 20), seed + 1)
        at = 0
        for role, share in _OTHERS.items():
            for _ in range(max(1, round(share * n))):
                _enrol(registry, others, at % others.n, rng, None, role, dirt)
                at += 1
    if dirt:
        faulty = draw_faulty_stays(registry.truth, registry.deaths, registry.coverage_end, rng)
        registry.stays += faulty
        registry.n_faulty_stays = len(faulty)
    return registry


def archive_visits(truth: pa.Table) -> list[tuple[Visit, float]]:
    """The visits of a synthetic DICOM archive, from its truth table."""
    return [
        (
            Visit(
                row["patient_id"],
                row["patient_id"],
                row["accession_number"],
                row["study_instance_uid"],
                row["study_date"],
                scored=row["planted_defect"] is None,
                sex=row.get("sex"),
                birth_date=row.get("birth_date"),
            ),
            row["agatston"],
        )
        for row in truth.to_pylist()
    ]


def truth_table(registry: Registry) -> pa.Table:
    """Expected result of the linkage, one row per patient, with raw identifiers."""
    names = list(dict.fromkeys(name for row in registry.truth for name in row))
    return pa.table({name: [row.get(name) for row in registry.truth] for name in names})


def registry_scores(registry: Registry, keyring: Keyring) -> tuple[pa.Table, pa.Table]:
    """The columns of `scores` that linkage reads, and accession keys, for generated visits."""
    rows = [
        {
            "study_key": keyring.study_key(visit.study_instance_uid),
            "patient_key": keyring.patient_key(visit.archived_id),
            "study_date": visit.study_date,
            "status": "scored" if visit.scored else "rejected",
            "reason": None if visit.scored else "missing_slices",
            "agatston": registry.agatston[visit.study_instance_uid] if visit.scored else None,
            "cac_category": cac_category(registry.agatston[visit.study_instance_uid])
            if visit.scored
            else None,
        }
        for visit in registry.visits
    ]
    names = ("study_key", "patient_key", "status", "reason", "cac_category")
    schema = pa.schema(
        {name: pa.string() for name in names}
        | {"study_date": pa.date32(), "agatston": pa.float64()}
    )
    accessions = pa.table(
        {
            "study_key": [row["study_key"] for row in rows],
            "accession_key": [keyring.accession_key(v.accession_number) for v in registry.visits],
        }
    )
    return pa.Table.from_pylist(rows, schema), accessions


def _by_patient(archive: Sequence[tuple[Visit, float]]) -> list[list[tuple[Visit, float]]]:
    groups: dict[str, list[tuple[Visit, float]]] = {}
    for visit, score in sorted(archive, key=lambda item: item[0].study_date):
        groups.setdefault(visit.patient_id, []).append((visit, score))
    return list(groups.values())


def _enrol(
    registry: Registry,
    cohort: Cohort,
    i: int,
    rng: np.random.Generator,
    given: list[tuple[Visit, float]] | None,
    role: str,
    dirt: bool,
) -> None:
    """Add one person: scans, clinical rows, records, and the expected linkage."""
    end_days, moved_days = int(cohort.end_days[i]), None
    eventless = bool(cohort.mace()[0][i] == 0)
    if role == "moved_before":
        moved_days = -int(rng.integers(5, 60))
    elif role == "included" and dirt and eventless and end_days > 400 and rng.random() < 0.02:
        moved_days = int(rng.integers(200, end_days - 10))
    visits, first = _visits(registry, cohort, i, rng, given, role, dirt)
    patient, scan_date = first.patient_id, first.study_date
    coverage_end = scan_date + dt.timedelta(days=end_days)
    if coverage_end != registry.coverage_end or moved_days is not None:
        moved = None if moved_days is None else scan_date + dt.timedelta(days=moved_days)
        registry.follow_up.append((patient, coverage_end, moved))
    if role != "no_record":
        for visit in visits:
            _describe(registry, cohort, i, visit, role, rng)
    history = _history(cohort, i, first, coverage_end, role)
    stays, deaths = draw_records(history, rng, dirt=dirt)
    registry.stays += stays
    registry.deaths += deaths
    registry.truth.append(_expected(cohort, i, first, role, end_days, moved_days))


def _as_in_the_headers(cohort: Cohort, i: int, visit: Visit) -> None:
    """Set sex and age of a person of the cohort to those of the archive's patient."""
    if visit.sex is not None:
        cohort.yes["male"][i] = visit.sex == "M"
    if visit.birth_date is not None:
        cohort.age_years[i] = round((visit.study_date - visit.birth_date).days / 365.25, 1)


def _visits(
    registry: Registry,
    cohort: Cohort,
    i: int,
    rng: np.random.Generator,
    given: list[tuple[Visit, float]] | None,
    role: str,
    dirt: bool,
) -> tuple[list[Visit], Visit]:
    """The scans of a person, and the one to be linked."""
    if given is not None:
        for visit, score in given:
            registry.visits.append(visit)
            registry.agatston[visit.study_instance_uid] = score
        everything = [visit for visit, _ in given]
        return everything, next((v for v in everything if v.scored), everything[0])
    date = COVERAGE_END - dt.timedelta(days=int(cohort.end_days[i]))
    visits, visit = _generated_visits(len(registry.truth), date, role, rng, dirt=dirt)
    if role != "no_study":
        registry.visits += visits
    for one in visits:
        registry.agatston[one.study_instance_uid] = float(cohort.dl_agatston[i])
        registry.expert_agatston[one.study_instance_uid] = float(cohort.expert_agatston[i])
    return visits, visit


def _generated_visits(
    number: int, date: dt.date, role: str, rng: np.random.Generator, *, dirt: bool
) -> tuple[list[Visit], Visit]:
    """The scans of person `number`, and the one of this date, which is to be linked."""
    patient = f"{int(rng.integers(10, 99))}-{number:06d}"
    uid, accession, scored = f"2.25.{number + 1}1", f"A{number:07d}", role != "no_score"
    visit = Visit(patient, patient, accession, uid, date, scored=scored)
    odd = rng.random() if dirt and role == "included" else 1.0
    if odd < 0.02:  # mistyped: linked by accession number only
        visit = replace(visit, archived_id=patient[:-1] + "X")
    visits = [visit]
    if 0.02 <= odd < 0.04:  # an earlier scan that was rejected
        earlier = date - dt.timedelta(days=int(rng.integers(30, 200)))
        uid, accession = f"2.25.{number + 1}0", f"B{number:07d}"
        visits.insert(0, Visit(patient, patient, accession, uid, earlier, scored=False))
    elif 0.04 <= odd < 0.07:  # a later scan, not to be linked
        later = date + dt.timedelta(days=int(rng.integers(20, 140)))
        uid, accession = f"2.25.{number + 1}2", f"C{number:07d}"
        visits.append(Visit(patient, patient, accession, uid, later))
    return visits, visit


def _describe(
    registry: Registry, cohort: Cohort, i: int, visit: Visit, role: str, rng: np.random.Generator
) -> None:
    """Clinical row, perfusion, and readings of a visit."""
    yes = {name: int(flags[i]) for name, flags in cohort.yes.items()}
    male = yes.pop("male")
    row: dict[str, Any] = {
        "patient_id": visit.patient_id,
        "study_date": visit.study_date,
        "accession_number": visit.accession_number,
        "age_years": float(cohort.age_years[i]),
        "sex": None if role == "no_sex" else "FM"[male],
        "bmi_kg_m2": float(cohort.bmi_kg_m2[i]),
        **yes,
        "prior_mi": int(role == "prior_mi"),
        "prior_pci": 0,
        "prior_cabg": 0,
    }
    registry.clinical.append(row)
    if role == "two_records":
        registry.clinical.append(row | {"diabetes": 1 - yes["diabetes"]})
    registry.perfusion.append(
        {
            "patient_id": visit.patient_id,
            # Some reports have the date of the next day.
            "study_date": visit.study_date + dt.timedelta(days=int(rng.random() < 0.1)),
            "stress_tpd_pct": float(cohort.stress_tpd_pct[i]),
            "rest_tpd_pct": float(cohort.rest_tpd_pct[i]),
            "stress_lvef_pct": float(cohort.stress_lvef_pct[i]),
        }
    )
    registry.readings += _readings(cohort, i, visit)


def _readings(cohort: Cohort, i: int, visit: Visit) -> list[dict[str, Any]]:
    """An expert score and a visual grade."""
    common = {"patient_id": visit.patient_id, "study_date": visit.study_date}
    score = float(cohort.expert_agatston[i])
    grade = VISUAL_GRADES[int(cohort.visual[i])]
    return [
        common | {"reader": "A", "method": "expert", "agatston": score, "visual_grade": None},
        common | {"reader": "B", "method": "visual", "agatston": None, "visual_grade": grade},
    ]


def _history(cohort: Cohort, i: int, visit: Visit, coverage_end: dt.date, role: str) -> History:
    return History(
        visit.patient_id,
        visit.study_date,
        coverage_end,
        role,
        death=int(cohort.death_days[i]),
        mi=int(cohort.mi_days[i]),
        unstable_angina=int(cohort.unstable_angina_days[i]),
        revascularisation=int(cohort.revascularisation_days[i]),
        procedure="cabg" if cohort.cabg[i] else "pci",
    )


def _expected(
    cohort: Cohort, i: int, visit: Visit, role: str, end_days: int, moved_days: int | None
) -> dict[str, Any]:
    """Expected linkage of one person."""
    step = _STEP.get(role, FlowStep.INCLUDED)
    if step is FlowStep.INCLUDED and not visit.scored:
        step = FlowStep.NO_SCORE
    row: dict[str, Any] = {
        "patient_id": visit.patient_id,
        "step": step.value,
        "study_instance_uid": visit.study_instance_uid,
        "study_date": visit.study_date,
    }
    if step is not FlowStep.INCLUDED:
        return row
    row |= {
        "age_years": float(cohort.age_years[i]),
        "sex": "FM"[int(cohort.yes["male"][i])],
        "bmi_kg_m2": float(cohort.bmi_kg_m2[i]),
        "diabetes": int(cohort.yes["diabetes"][i]),
        "stress_tpd_pct": float(cohort.stress_tpd_pct[i]),
        "expert_agatston": float(cohort.expert_agatston[i]),
        "visual_grade": VISUAL_GRADES[int(cohort.visual[i])],
    }
    for outcome, kinds in OUTCOMES.items():
        happened, days = cohort.first_event(*kinds)
        event, at = int(happened[i]), int(days[i])
        if moved_days is not None:  # only people without events move
            event, at = 0, min(moved_days, end_days)
        row[f"{outcome}_event"], row[f"{outcome}_days"] = event, at
    early = 0 <= cohort.revascularisation_days[i] <= EARLY_DAYS
    if early:
        for part in ("event", "days"):
            row[f"mace_no_early_revascularisation_{part}"] = None
    return row
