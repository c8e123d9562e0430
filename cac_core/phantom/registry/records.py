"""A synthetic registry: people of `cohort` with their records, dirt among them, and the truth.

Records are made once, as a hospital knows them; `dialects` writes them the way three sites would.
The truth is computed from the cohort that was drawn, never by reading the records back.
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
from cac_core.phantom.registry.cohort import Cohort, draw_cohort
from schemas.codes import FlowStep

COVERAGE_BEGIN, COVERAGE_END = dt.date(2005, 1, 1), dt.date(2019, 12, 31)
EARLY_DAYS = 90
OUTCOMES: dict[str, tuple[str, ...]] = {
    "mace": ("death", "mi", "unstable_angina", "revascularisation"),
    "death_mi": ("death", "mi"),
    "death": ("death",),
    "mace_no_early_revascularisation": ("death", "mi", "unstable_angina", "revascularisation"),
}
VISUAL_GRADES = ("absent", "equivocal", "present", "extensive")
#: Share of people, beside those in the analysis, by the step at which they leave or what is odd.
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
#: Diagnoses that are no outcome; the last ones only look like one.
_OTHER_DISEASE = ("J18.9", "I10", "E11.9", "N17.9", "I48.0", "K92.2", "R07.4", "I20.8", "I25.1")


@dataclass(frozen=True, slots=True)
class Visit:
    """A scan in the archive; `archived_id` is the PatientID there, mistyped now and then.

    `sex` and `birth_date` are those of the archive's headers, where there is an archive.
    """

    patient_id: str
    archived_id: str
    accession_number: str
    study_instance_uid: str
    study_date: dt.date
    scored: bool = True
    sex: str | None = None
    birth_date: dt.date | None = None


@dataclass(frozen=True, slots=True)
class Stay:
    """A discharge abstract or ambulatory record. A date may be a text that is none.

    `diagnoses` are (ICD-10, type: M most responsible, 1 comorbid, 3 not in this stay);
    `procedures` are (`pci` or `cabg`, date).
    """

    patient_id: str
    admit: dt.date | str
    discharge: dt.date | None
    kind: str
    diagnoses: tuple[tuple[str, str], ...] = ()
    procedures: tuple[tuple[str, dt.date], ...] = ()


@dataclass
class Registry:
    """Everything that three sites' extracts are written from.

    `clinical`, `perfusion`, `readings`: canonical rows as dictionaries; `deaths`: (patient, date);
    `follow_up`: (patient, last day of coverage, day of emigration); `truth`: what the linkage must
    find, a row per patient; `n_faulty_stays`: stays that belong into quarantine.
    """

    visits: list[Visit] = field(default_factory=list)
    clinical: list[dict[str, Any]] = field(default_factory=list)
    perfusion: list[dict[str, Any]] = field(default_factory=list)
    readings: list[dict[str, Any]] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    deaths: list[tuple[str, dt.date]] = field(default_factory=list)
    follow_up: list[tuple[str, dt.date | None, dt.date | None]] = field(default_factory=list)
    truth: list[dict[str, Any]] = field(default_factory=list)
    agatston: dict[str, float] = field(default_factory=dict)
    n_faulty_stays: int = 0
    coverage_end: dt.date = COVERAGE_END


def make_registry(
    n: int, seed: int, *, dirt: bool = True, archive: Sequence[tuple[Visit, float]] = ()
) -> Registry:
    """Draw a registry.

    Parameters
    ----------
    n : people in the analysis; more are drawn beside them who are not. With an archive, the
        number of its patients.
    dirt : whether to plant duplicates, transfers, impossible dates, unknown codes and people who
        are in one source only.
    archive : visits of a scored archive with their Agatston scores; without, visits are made up.
    """
    rng = np.random.default_rng([seed, n, 71])
    registry = Registry()
    by_patient = _by_patient(archive)
    cohort = draw_cohort(len(by_patient) or n, seed)
    if archive:  # late enough for everybody's follow-up
        newest = max(visit.study_date for visit, _ in archive)
        registry.coverage_end = newest + dt.timedelta(days=int(cohort.end_days.max()))
    order: Sequence[int] = range(cohort.n)
    if by_patient:  # who has more calcium in the archive has more in the cohort
        ranked = np.argsort([max(score for _, score in group) for group in by_patient])
        order = [int(i) for i in np.argsort(cohort.dl_agatston)[np.argsort(ranked)]]
    for place, i in enumerate(order):
        visits = by_patient[place] if by_patient else None
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
        _plant_faults(registry, rng)
    return registry


def archive_visits(truth: pa.Table) -> list[tuple[Visit, float]]:
    """The visits of a synthetic DICOM archive, from the truth that was written beside it."""
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
    """What the linkage must find, a row per patient; it holds the raw identifiers."""
    names = list(dict.fromkeys(name for row in registry.truth for name in row))
    return pa.table({name: [row.get(name) for row in registry.truth] for name in names})


def registry_scores(registry: Registry, keyring: Keyring) -> tuple[pa.Table, pa.Table]:
    """What the archive would have given: columns of `scores` that linkage reads, and accessions.

    For registries whose visits were made up.
    """
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
    """Add one person: scans, clinical rows, records, and what the linkage must find."""
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
    _record(registry, cohort, i, patient, scan_date, coverage_end, role, rng, dirt)
    registry.truth.append(_expected(cohort, i, first, role, end_days, moved_days))


def _as_in_the_headers(cohort: Cohort, i: int, visit: Visit) -> None:
    """Give a person of the cohort the sex and age of the archive's patient."""
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
    """The scans of a person, and the one that counts."""
    if given is not None:
        for visit, score in given:
            registry.visits.append(visit)
            registry.agatston[visit.study_instance_uid] = score
        everything = [visit for visit, _ in given]
        return everything, next((v for v in everything if v.scored), everything[0])
    number = len(registry.truth)
    patient = f"{int(rng.integers(10, 99))}-{number:06d}"
    date = COVERAGE_END - dt.timedelta(days=int(cohort.end_days[i]))
    visit = Visit(
        patient,
        patient,
        f"A{number:07d}",
        f"2.25.{number + 1}1",
        date,
        scored=role != "no_score",
    )
    odd = rng.random() if dirt and role == "included" else 1.0
    if odd < 0.02:  # mistyped at the scanner: only the accession number leads to the patient
        visit = replace(visit, archived_id=patient[:-1] + "X")
    visits = [visit]
    if 0.02 <= odd < 0.04:  # an earlier scan that could not be scored
        earlier = date - dt.timedelta(days=int(rng.integers(30, 200)))
        uid, accession = f"2.25.{number + 1}0", f"B{number:07d}"
        failed = Visit(patient, patient, accession, uid, earlier, scored=False)
        visits.insert(0, failed)
    elif 0.04 <= odd < 0.07:  # a second scan, which does not count
        later = date + dt.timedelta(days=int(rng.integers(20, 140)))
        uid, accession = f"2.25.{number + 1}2", f"C{number:07d}"
        visits.append(Visit(patient, patient, accession, uid, later))
    if role != "no_study":
        registry.visits += visits
    for one in visits:
        registry.agatston[one.study_instance_uid] = float(cohort.dl_agatston[i])
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
            # Some reports are dated the day after.
            "study_date": visit.study_date + dt.timedelta(days=int(rng.random() < 0.1)),
            "stress_tpd_pct": float(cohort.stress_tpd_pct[i]),
            "rest_tpd_pct": float(cohort.rest_tpd_pct[i]),
            "stress_lvef_pct": float(cohort.stress_lvef_pct[i]),
        }
    )
    for method, reader in (("expert", "A"), ("visual", "B")):
        expert = method == "expert"
        registry.readings.append(
            {
                "patient_id": visit.patient_id,
                "study_date": visit.study_date,
                "reader": reader,
                "method": method,
                "agatston": float(cohort.expert_agatston[i]) if expert else None,
                "visual_grade": None if expert else VISUAL_GRADES[int(cohort.visual[i])],
            }
        )


def _record(
    registry: Registry,
    cohort: Cohort,
    i: int,
    patient: str,
    scan: dt.date,
    coverage_end: dt.date,
    role: str,
    rng: np.random.Generator,
    dirt: bool,
) -> None:
    """Stays and death of a person; what is no event keeps clear of what is one."""

    def day(days: int) -> dt.date:
        return scan + dt.timedelta(days=days)

    death, mi, angina, revascularised = (
        int(days[i])
        for days in (
            cohort.death_days,
            cohort.mi_days,
            cohort.unstable_angina_days,
            cohort.revascularisation_days,
        )
    )
    last = day(death) if death >= 0 else coverage_end
    busy = [days for days in (mi, angina, revascularised) if days >= 0]
    if mi >= 0:
        treated = revascularised if 0 <= revascularised - mi <= 6 else -1
        leave = min(day(max(mi + int(rng.integers(3, 9)), treated)), last)
        procedures = ((_kind(cohort, i), day(treated)),) if treated >= 0 else ()
        stay = Stay(
            patient, day(mi), leave, "inpatient", (("I21.4", "M"), ("I10", "1")), procedures
        )
        registry.stays += _with_transfers(stay, rng) if dirt else [stay]
    if angina >= 0:
        leave = min(day(angina + int(rng.integers(1, 5))), last)
        stay = Stay(patient, day(angina), leave, "inpatient", (("I20.0", "M"), ("E78.0", "1")))
        registry.stays.append(stay)
    if revascularised >= 0 and not (mi >= 0 and 0 <= revascularised - mi <= 6):
        leave = min(day(revascularised + int(rng.integers(0, 6))), last)
        done = ((_kind(cohort, i), day(revascularised)),)
        stay = Stay(patient, day(revascularised), leave, "inpatient", (("I25.1", "M"),), done)
        registry.stays.append(stay)
    if death >= 0:
        registry.deaths.append((patient, day(death)))
        if dirt and rng.random() < 0.05:
            registry.deaths.append((patient, day(death)))
    if role == "two_deaths":
        registry.deaths = [item for item in registry.deaths if item[0] != patient]
        registry.deaths += [(patient, day(40)), (patient, day(47))]
        registry.stays = [stay for stay in registry.stays if stay.patient_id != patient]
        return
    if role == "prior_bypass":
        before = day(-int(rng.integers(0, 900)))
        done = (("cabg", before),)
        registry.stays.append(Stay(patient, before, before, "inpatient", (("I25.1", "M"),), done))
    if role == "old_stent":
        before = day(-int(rng.integers(1, 900)))
        registry.stays.append(Stay(patient, before, before, "ambulatory", (("Z95.5", "1"),)))
    for _ in range(int(rng.poisson(2.0))):
        begin = int(rng.integers(-700, max((last - scan).days, 1)))
        if all(abs(begin - event) > 30 for event in busy) and day(begin) < last:
            code = str(rng.choice(_OTHER_DISEASE))
            kind = str(rng.choice(["inpatient", "emergency", "ambulatory"]))
            left = min(day(begin + int(rng.integers(0, 9))), last) if kind == "inpatient" else None
            registry.stays.append(Stay(patient, day(begin), left, kind, ((code, "M"),)))
    if dirt and rng.random() < 0.05 and (last - scan).days > 100 and not busy:
        registry.stays += _lookalikes(patient, day(50))


def _kind(cohort: Cohort, i: int) -> str:
    return "cabg" if cohort.cabg[i] else "pci"


def _with_transfers(stay: Stay, rng: np.random.Generator) -> list[Stay]:
    """The stay as it comes: whole, twice, or parted by a transfer to another hospital."""
    assert isinstance(stay.admit, dt.date) and stay.discharge is not None
    chance = rng.random()
    if chance < 0.15:
        return [stay, stay]
    if chance < 0.4 and (stay.discharge - stay.admit).days >= 2:
        # Admitted with chest pain, moved the same or the next day; the second hospital names it.
        moved = stay.admit + dt.timedelta(days=1)
        pain = Stay(stay.patient_id, stay.admit, moved, stay.kind, (("R07.4", "M"),))
        later = moved + dt.timedelta(days=int(rng.random() < 0.5))
        done = tuple((kind, max(date, later)) for kind, date in stay.procedures)
        if done == stay.procedures:
            return [pain, replace(stay, admit=later, procedures=done)]
    if chance < 0.5:  # coded once more where the patient was sent on to
        onward = stay.discharge
        again = Stay(stay.patient_id, onward, onward, stay.kind, (("I21.9", "M"),))
        return [stay, again]
    return [stay]


def _lookalikes(patient: str, date: dt.date) -> list[Stay]:
    """Records that name the codes of an outcome and are no event."""
    return [
        Stay(patient, date, date, "inpatient", (("J18.9", "M"), ("I21.9", "3"))),
        Stay(patient, date + dt.timedelta(days=9), None, "ambulatory", (("I21.4", "M"),)),
        Stay(
            patient,
            date + dt.timedelta(days=20),
            date + dt.timedelta(days=22),
            "inpatient",
            (("I50.0", "M"), ("I20.0", "1")),
        ),
    ]


def _plant_faults(registry: Registry, rng: np.random.Generator) -> None:
    """Records that must end in quarantine, each with the code of an event."""
    eventful = (("I21.4", "M"),)
    died = dict(registry.deaths)
    included = [row for row in registry.truth if row["step"] == FlowStep.INCLUDED.value]
    faulty: list[Stay] = []
    for row in included:
        if rng.random() > 0.06:
            continue
        patient, scan = str(row["patient_id"]), row["study_date"]
        after = scan + dt.timedelta(days=30)
        kind = 3 if patient in died else (0, 1, 2, 4, 5)[len(faulty) % 5]
        if kind == 0:
            faulty.append(Stay(patient, "31/02/2015", after, "inpatient", eventful))
        elif kind == 1:
            faulty.append(Stay(patient, after, after - dt.timedelta(days=9), "inpatient", eventful))
        elif kind == 2:
            faulty.append(Stay(patient, after, after, "unheard of", eventful))
        elif kind == 3 and patient in died:
            late = died[patient] + dt.timedelta(days=3)
            if late <= registry.coverage_end:
                faulty.append(Stay(patient, late, late, "inpatient", eventful))
        elif kind == 4:
            late = registry.coverage_end + dt.timedelta(days=5)
            faulty.append(Stay(patient, late, late, "inpatient", eventful))
        elif kind == 5:
            unborn = COVERAGE_BEGIN - dt.timedelta(days=40000)
            faulty.append(Stay(patient, unborn, unborn, "inpatient", eventful))
    registry.stays += faulty
    registry.n_faulty_stays = len(faulty)


def _expected(
    cohort: Cohort, i: int, visit: Visit, role: str, end_days: int, moved_days: int | None
) -> dict[str, Any]:
    """What the linkage must find for one person."""
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
