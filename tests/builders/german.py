"""The synthetic registry as three CSV files of a German hospital.

Semicolons, decimal commas, dates as dd.mm.yyyy, m/w, ja/nein, diagnosis types HD and ND, OPS codes.
Patients with perfusion and readings, cases, and the vital status are a file each.
"""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cac_core.phantom.registry.records import Registry
from cac_core.phantom.registry.stays import Stay

_OPS = {"pci": "8-837.m0", "cabg": "5-361.03"}
_TYPES = {"M": "HD", "1": "ND", "3": "VD"}
_KINDS = {"inpatient": "vollstationär", "emergency": "Notfall", "ambulatory": "ambulant"}
_GRADES = {
    "absent": "kein",
    "equivocal": "fraglich",
    "present": "vorhanden",
    "extensive": "ausgedehnt",
}
_YES_NO = {
    "hypertension": "Hypertonie",
    "diabetes": "Diabetes mellitus",
    "dyslipidemia": "Fettstoffwechselstörung",
    "family_history": "Familienanamnese",
    "smoking": "Raucher",
    "prior_mi": "Vorbek. Myokardinfarkt",
    "prior_pci": "Vorbek. PCI",
    "prior_cabg": "Vorbek. Bypass",
}


def write_german(registry: Registry, folder: Path) -> None:
    """Write `patienten.csv`, `faelle.csv` and `vitalstatus.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "patienten.csv", _patients(registry))
    _write(folder / "faelle.csv", [_case(stay) for stay in registry.stays])
    _write(folder / "vitalstatus.csv", _vital(registry))


def _day(date: object) -> str:
    if isinstance(date, dt.date):
        return date.strftime("%d.%m.%Y")
    return str(date or "").replace("/", ".")


def _number(value: object) -> str:
    return "" if value is None else str(value).replace(".", ",")


def _write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", encoding="cp1252", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)


def _patients(registry: Registry) -> list[dict[str, str]]:
    read: dict[tuple[str, dt.date], dict[str, Any]] = {}
    for row in registry.readings:
        found = read.setdefault((row["patient_id"], row["study_date"]), {})
        found |= {k: v for k, v in row.items() if v is not None}
    # Perfusion reports can have the date of the next day.
    perfusion = {row["patient_id"]: {} for row in registry.perfusion}
    for row in registry.perfusion:
        for late in (0, 1):
            perfusion[row["patient_id"]][row["study_date"] - dt.timedelta(days=late)] = row
    return [
        _patient(
            row,
            perfusion[row["patient_id"]].get(row["study_date"], {}),
            read.get((row["patient_id"], row["study_date"]), {}),
        )
        for row in registry.clinical
    ]


def _patient(row: dict[str, Any], spect: dict[str, Any], read: dict[str, Any]) -> dict[str, str]:
    yes = {1: "ja", 0: "nein", None: ""}
    return {
        "Pat.-Nr.": row["patient_id"],
        "Untersuchung am": _day(row["study_date"]),
        "Auftragsnummer": row["accession_number"],
        "Alter (J)": _number(row["age_years"]),
        "Geschlecht": {"M": "m", "F": "w", None: "unbekannt"}[row["sex"]],
        "BMI (kg/m²)": _number(row["bmi_kg_m2"]),
        **{name: yes[row[ours]] for ours, name in _YES_NO.items()},
        "TPD Belastung (%)": _number(spect.get("stress_tpd_pct")),
        "TPD Ruhe (%)": _number(spect.get("rest_tpd_pct")),
        "LVEF Belastung (%)": _number(spect.get("stress_lvef_pct")),
        "Agatston-Score": _number(read.get("agatston")),
        "Kalk visuell": _GRADES.get(read.get("visual_grade", ""), ""),
    }


def _case(stay: Stay) -> dict[str, str]:
    row = {
        "Pat.-Nr.": stay.patient_id,
        "Aufnahmedatum": _day(stay.admit),
        "Entlassungsdatum": _day(stay.discharge),
        "Fallart": _KINDS.get(stay.kind, "Q"),
    }
    for n in range(1, 4):
        code, kind = stay.diagnoses[n - 1] if n <= len(stay.diagnoses) else ("", "")
        row |= {f"Diagnose {n}": code, f"Diagnoseart {n}": _TYPES.get(kind, "")}
    for n in range(1, 3):
        kind, date = stay.procedures[n - 1] if n <= len(stay.procedures) else ("", None)
        row |= {f"OPS {n}": _OPS.get(kind, ""), f"OPS-Datum {n}": _day(date)}
    return row


def _vital(registry: Registry) -> list[dict[str, str]]:
    """One row per patient; a second one where two deaths are recorded."""
    died: dict[str, list[dt.date]] = {}
    for patient, date in registry.deaths:
        died.setdefault(patient, []).append(date)
    watched = {patient: (until, moved) for patient, until, moved in registry.follow_up}
    rows = []
    for patient in dict.fromkeys([*watched, *died]):
        until, moved = watched.get(patient, (None, None))
        for date in died.get(patient, [None]):
            rows.append(
                {
                    "Pat.-Nr.": patient,
                    "Verstorben am": _day(date),
                    "Verzogen am": _day(moved),
                    "Beobachtet bis": _day(until),
                }
            )
    return rows
