"""Hospital stays and deaths of synthetic people, as a hospital knows them, and faulty records."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from schemas.codes import FlowStep

COVERAGE_BEGIN, COVERAGE_END = dt.date(2005, 1, 1), dt.date(2019, 12, 31)
#: Diagnoses that are no outcome; the last three resemble one.
_OTHER_DISEASE = ("J18.9", "I10", "E11.9", "N17.9", "I48.0", "K92.2", "R07.4", "I20.8", "I25.1")


@dataclass(frozen=True, slots=True)
class Stay:
    """A discharge abstract or ambulatory record; an invalid date is a text.

    `diagnoses` are (ICD-10, type: M most responsible, 1 comorbid, 3 not in this stay);
    `procedures` are (`pci` or `cabg`, date).
    """

    patient_id: str
    admit: dt.date | str
    discharge: dt.date | None
    kind: str
    diagnoses: tuple[tuple[str, str], ...] = ()
    procedures: tuple[tuple[str, dt.date], ...] = ()


#: Faults of records of people who are alive, in turn.
_FAULTS = ("no_date", "left_before_admission", "unknown_kind", "after_coverage", "before_birth")
Death = tuple[str, dt.date]


@dataclass(frozen=True, slots=True)
class History:
    """Events of one person in days from the scan, -1 if there is none.

    `role` is `included` or the reason why the person is not, see `records`. `procedure` is the kind
    of the revascularisation, `pci` or `cabg`.
    """

    patient: str
    scan: dt.date
    coverage_end: dt.date
    role: str
    death: int
    mi: int
    unstable_angina: int
    revascularisation: int
    procedure: str

    def day(self, days: int) -> dt.date:
        """Date of a day after the scan."""
        return self.scan + dt.timedelta(days=days)

    @property
    def last(self) -> dt.date:
        """Death or end of coverage."""
        return self.day(self.death) if self.death >= 0 else self.coverage_end

    @property
    def events(self) -> list[int]:
        """Days of events that are recorded as stays."""
        return [d for d in (self.mi, self.unstable_angina, self.revascularisation) if d >= 0]

    @property
    def treated_mi(self) -> bool:
        """Whether the revascularisation belongs to the stay of the infarction."""
        return self.mi >= 0 and 0 <= self.revascularisation - self.mi <= 6


def draw_records(
    person: History, rng: np.random.Generator, *, dirt: bool
) -> tuple[list[Stay], list[Death]]:
    """Stays and deaths of a person; other stays keep a distance to those of events.

    Parameters
    ----------
    dirt : add duplicates, transfers and records that resemble an event.
    """
    stays = _event_stays(person, rng, dirt=dirt)
    deaths: list[Death] = []
    if person.death >= 0:
        died = (person.patient, person.day(person.death))
        deaths += [died, died] if dirt and rng.random() < 0.05 else [died]
    if person.role == "two_deaths":
        return [], [(person.patient, person.day(40)), (person.patient, person.day(47))]
    stays += _earlier_stays(person, rng)
    stays += _unrelated_stays(person, rng)
    long_enough = (person.last - person.scan).days > 100
    if dirt and rng.random() < 0.05 and long_enough and not person.events:
        stays += _lookalikes(person.patient, person.day(50))
    return stays, deaths


def _event_stays(person: History, rng: np.random.Generator, *, dirt: bool) -> list[Stay]:
    """Stays of infarction, unstable angina and revascularisation."""
    patient, day, last = person.patient, person.day, person.last
    revascularised = person.revascularisation
    stays: list[Stay] = []
    if person.mi >= 0:
        treated = revascularised if person.treated_mi else -1
        leave = min(day(max(person.mi + int(rng.integers(3, 9)), treated)), last)
        done = ((person.procedure, day(treated)),) if treated >= 0 else ()
        diagnoses = (("I21.4", "M"), ("I10", "1"))
        stay = Stay(patient, day(person.mi), leave, "inpatient", diagnoses, done)
        stays += _with_transfers(stay, rng) if dirt else [stay]
    if person.unstable_angina >= 0:
        leave = min(day(person.unstable_angina + int(rng.integers(1, 5))), last)
        diagnoses = (("I20.0", "M"), ("E78.0", "1"))
        stays.append(Stay(patient, day(person.unstable_angina), leave, "inpatient", diagnoses))
    if revascularised >= 0 and not person.treated_mi:
        leave = min(day(revascularised + int(rng.integers(0, 6))), last)
        done = ((person.procedure, day(revascularised)),)
        stays.append(
            Stay(patient, day(revascularised), leave, "inpatient", (("I25.1", "M"),), done)
        )
    return stays


def _earlier_stays(person: History, rng: np.random.Generator) -> list[Stay]:
    """Records of known coronary disease before the scan."""
    if person.role == "prior_bypass":
        before = person.day(-int(rng.integers(0, 900)))
        done = (("cabg", before),)
        return [Stay(person.patient, before, before, "inpatient", (("I25.1", "M"),), done)]
    if person.role == "old_stent":
        before = person.day(-int(rng.integers(1, 900)))
        return [Stay(person.patient, before, before, "ambulatory", (("Z95.5", "1"),))]
    return []


def _unrelated_stays(person: History, rng: np.random.Generator) -> list[Stay]:
    day, last = person.day, person.last
    stays = []
    for _ in range(int(rng.poisson(2.0))):
        begin = int(rng.integers(-700, max((last - person.scan).days, 1)))
        if all(abs(begin - event) > 30 for event in person.events) and day(begin) < last:
            code = str(rng.choice(_OTHER_DISEASE))
            kind = str(rng.choice(["inpatient", "emergency", "ambulatory"]))
            left = min(day(begin + int(rng.integers(0, 9))), last) if kind == "inpatient" else None
            stays.append(Stay(person.patient, day(begin), left, kind, ((code, "M"),)))
    return stays


def _with_transfers(stay: Stay, rng: np.random.Generator) -> list[Stay]:
    """The stay as recorded: once, twice, or split by a transfer to another hospital."""
    assert isinstance(stay.admit, dt.date) and stay.discharge is not None
    chance = rng.random()
    if chance < 0.15:
        return [stay, stay]
    if chance < 0.4 and (stay.discharge - stay.admit).days >= 2:
        # Admitted with chest pain and transferred; the second hospital codes the infarction.
        moved = stay.admit + dt.timedelta(days=1)
        pain = Stay(stay.patient_id, stay.admit, moved, stay.kind, (("R07.4", "M"),))
        later = moved + dt.timedelta(days=int(rng.random() < 0.5))
        done = tuple((kind, max(date, later)) for kind, date in stay.procedures)
        if done == stay.procedures:
            return [pain, replace(stay, admit=later, procedures=done)]
    if chance < 0.5:  # coded again after a transfer at discharge
        onward = stay.discharge
        again = Stay(stay.patient_id, onward, onward, stay.kind, (("I21.9", "M"),))
        return [stay, again]
    return [stay]


def _lookalikes(patient: str, date: dt.date) -> list[Stay]:
    """Records with the codes of an outcome that are no event."""
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


def draw_faulty_stays(
    truth: Sequence[Mapping[str, Any]],
    deaths: Sequence[Death],
    coverage_end: dt.date,
    rng: np.random.Generator,
) -> list[Stay]:
    """Invalid records of included people, each with the code of an event.

    Parameters
    ----------
    truth : rows of `Registry.truth`.
    """
    died = dict(deaths)
    faulty: list[Stay] = []
    for row in truth:
        if row["step"] != FlowStep.INCLUDED.value or rng.random() > 0.06:
            continue
        patient = str(row["patient_id"])
        fault = "after_death" if patient in died else _FAULTS[len(faulty) % len(_FAULTS)]
        stay = _faulty_stay(fault, patient, row["study_date"], died.get(patient), coverage_end)
        if stay is not None:
            faulty.append(stay)
    return faulty


def _faulty_stay(
    fault: str, patient: str, scan: dt.date, died: dt.date | None, coverage_end: dt.date
) -> Stay | None:
    after = scan + dt.timedelta(days=30)
    admit: dt.date | str = after
    discharge, kind = after, "inpatient"
    if fault == "no_date":
        admit = "31/02/2015"
    elif fault == "left_before_admission":
        discharge = after - dt.timedelta(days=9)
    elif fault == "unknown_kind":
        kind = "unheard of"
    elif fault == "after_death" and died is not None:
        admit = discharge = died + dt.timedelta(days=3)
        if discharge > coverage_end:
            return None
    elif fault == "after_coverage":
        admit = discharge = coverage_end + dt.timedelta(days=5)
    elif fault == "before_birth":
        admit = discharge = COVERAGE_BEGIN - dt.timedelta(days=40000)
    return Stay(patient, admit, discharge, kind, (("I21.4", "M"),))
