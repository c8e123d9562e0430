"""Extracts of a synthetic registry in the formats of three sites, each with its mapping.

- `abstracts`: discharge abstracts and ambulatory records with numbered diagnosis and procedure
  fields, in several files, one of them compressed, and separate vital statistics, as in Canadian
  registries (CCI procedures, dates like 03MAR2012).
- `flat`: CSV files of a hospital by subject, with semicolons, decimal commas, a second encoding in
  some lines, birth date instead of age, pounds and inches, OPCS-4 procedures, 1/2 and ja/nein.
- `columnar`: Parquet files with other column names, typed dates, ICD-10-PCS procedures, and deaths
  and end of observation in a table of persons.

Rows are in random order; text files contain a few truncated lines.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cac_core.phantom.registry.records import Registry
from cac_core.phantom.registry.stays import COVERAGE_END, Stay

_PROCEDURES = {
    "abstracts": {"pci": "1.IJ.50.GQ-OA", "cabg": "1.IJ.76.LA-XX-A"},
    "flat": {"pci": "K75.1", "cabg": "K40.2"},
    "columnar": {"pci": "02703DZ", "cabg": "02100Z9"},
}
_YES_NO = (
    "hypertension",
    "diabetes",
    "dyslipidemia",
    "family_history",
    "smoking",
    "prior_mi",
    "prior_pci",
    "prior_cabg",
)
Rows = Sequence[Mapping[str, Any]]


def write_extracts(registry: Registry, dialect: str, folder: Path, seed: int) -> Path:
    """Write the extracts of a dialect and its mapping; returns the path of the mapping.

    Parameters
    ----------
    dialect : one of `DIALECTS`.
    seed : determines the order of the rows, which must not matter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    DIALECTS[dialect](registry, folder, np.random.default_rng([seed, 17]))
    mapping = folder / "mapping.toml"
    shipped = files("cac_core.phantom.registry").joinpath("mappings", f"{dialect}.toml")
    text = shipped.read_text(encoding="utf-8")
    mapping.write_text(
        text.replace(f"end = {COVERAGE_END}", f"end = {registry.coverage_end}"), encoding="utf-8"
    )
    return mapping


def _canadian_day(date: object) -> str:
    return date.strftime("%d%b%Y").upper() if isinstance(date, dt.date) else str(date or "")


def _abstract(stay: Stay) -> dict[str, str]:
    """One row per stay, with numbered diagnosis and procedure fields."""
    row = {
        "PHN": stay.patient_id,
        "ADMITDATE": _canadian_day(stay.admit),
        "DISDATE": _canadian_day(stay.discharge),
        "LEVEL": {"inpatient": "D", "emergency": "E", "ambulatory": "A"}.get(stay.kind, "Q"),
    }
    for n in range(1, 4):
        code, kind = stay.diagnoses[n - 1] if n <= len(stay.diagnoses) else ("", "")
        row |= {f"DXCODE{n}": code, f"DXTYPE{n}": kind}
    for n in range(1, 3):
        kind, date = stay.procedures[n - 1] if n <= len(stay.procedures) else ("", None)
        code = _PROCEDURES["abstracts"].get(kind, "")
        row |= {f"PROCCODE{n}": code, f"PROCDATE{n}": _canadian_day(date)}
    return row


def _abstracts(registry: Registry, folder: Path, rng: np.random.Generator) -> None:
    day = _canadian_day
    stays = _shuffled([_abstract(stay) for stay in registry.stays], rng)
    half = len(stays) // 2
    _write_csv(folder / "dad_2005_2012.csv", stays[:half], ",", cut=2)
    packed = gzip.compress(_csv(stays[half:], ","), mtime=0)
    (folder / "dad_2013_2019.csv.gz").write_bytes(packed)
    yes = {1: "Y", 0: "N", None: "."}
    clinical = [
        {
            "PHN": row["patient_id"],
            "SCANDATE": day(row["study_date"]),
            "ACCESSION": row["accession_number"],
            "AGE": row["age_years"],
            "SEX": row["sex"] or ".",
            "BMI": row["bmi_kg_m2"],
            **{name.upper(): yes[row[name]] for name in _YES_NO},
        }
        for row in registry.clinical
    ]
    _write_csv(folder / "clinical.csv", _shuffled(clinical, rng), ",")
    died = _shuffled([{"PHN": p, "DEATHDATE": day(d)} for p, d in registry.deaths], rng)
    _write_csv(folder / "vital_statistics.csv", died, ",", header=("PHN", "DEATHDATE"))
    follow = [
        {"PHN": p, "COVEREDTO": day(covered), "MOVED": day(moved)}
        for p, covered, moved in registry.follow_up
    ]
    _write_csv(folder / "coverage.csv", follow, ",", header=("PHN", "COVEREDTO", "MOVED"))
    _write_csv(folder / "spect.csv", _with_days(registry.perfusion, day), ",")
    _write_csv(folder / "readings.csv", _with_days(registry.readings, day), ",")


def _german_day(date: object) -> str:
    return date.strftime("%d.%m.%Y") if isinstance(date, dt.date) else str(date or "")


def _comma(value: object) -> str:
    """A number with a decimal comma."""
    return "" if value is None else str(value).replace(".", ",")


def _flat_lines(stay: Stay) -> list[dict[str, str]]:
    """One line per diagnosis or procedure."""
    kinds = {"inpatient": "stationär", "emergency": "Notfall", "ambulatory": "ambulant"}
    plain = {
        "Fallnr": stay.patient_id,
        "Aufnahme": _german_day(stay.admit),
        "Entlassung": _german_day(stay.discharge),
        "Art": kinds.get(stay.kind, "unbekannt"),
    }
    empty = {"ICD": "", "Typ": "", "OPCS": "", "OPDatum": ""}
    lines = [plain | empty | {"ICD": code, "Typ": kind} for code, kind in stay.diagnoses]
    lines += [
        plain | empty | {"OPCS": _PROCEDURES["flat"][kind], "OPDatum": _german_day(date)}
        for kind, date in stay.procedures
    ]
    return lines or [plain | empty]


def _flat_patient(number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """A clinical row with birth date instead of age, pounds and inches."""
    height = 60 + number % 17  # inches
    born = row["study_date"] - dt.timedelta(days=round(row["age_years"] * 365.25))
    weight = row["bmi_kg_m2"] * (height * 0.0254) ** 2 / 0.45359237
    yes = {1: "ja", 0: "nein", None: ""}
    return {
        "Patient": row["patient_id"],
        "Datum": _german_day(row["study_date"]),
        "Auftrag": row["accession_number"],
        "Geburt": _german_day(born),
        "Geschlecht": {"M": "1", "F": "2", None: "9"}[row["sex"]],
        "Gewicht": _comma(round(weight, 3)),
        "Groesse": str(height),
        **{f"V_{name}": yes[row[name]] for name in _YES_NO},
    }


def _flat(registry: Registry, folder: Path, rng: np.random.Generator) -> None:
    day = _german_day
    stays = _shuffled([line for stay in registry.stays for line in _flat_lines(stay)], rng)
    lines = _csv(stays, ";").decode("utf-8").splitlines(keepends=True)
    # Written by two systems: every third line has the encoding of the old one.
    mixed = [line.encode("cp1252" if n % 3 == 2 else "utf-8") for n, line in enumerate(lines)]
    (folder / "faelle.csv").write_bytes(b"".join(mixed))
    clinical = [_flat_patient(number, row) for number, row in enumerate(registry.clinical)]
    _write_csv(folder / "patienten.csv", _shuffled(clinical, rng), ";")
    died = _shuffled([{"Patient": p, "Tod": day(d)} for p, d in registry.deaths], rng)
    _write_csv(folder / "todesfaelle.csv", died, ";", header=("Patient", "Tod"))
    follow = [
        {"Patient": p, "Bis": day(covered), "Wegzug": day(moved)}
        for p, covered, moved in registry.follow_up
    ]
    _write_csv(folder / "wegzug.csv", follow, ";", header=("Patient", "Bis", "Wegzug"))
    for name, rows in (("perfusion", registry.perfusion), ("befunde", registry.readings)):
        written = [
            {k: _comma(v) if isinstance(v, float) or v is None else v for k, v in row.items()}
            for row in _with_days(rows, day)
        ]
        _write_csv(folder / f"{name}.csv", written, ";")


def _columnar_rows(stay: Stay) -> list[dict[str, Any]]:
    """One row per diagnosis or procedure."""
    kinds = {"inpatient": "IP", "emergency": "ED", "ambulatory": "OP"}
    plain = {
        "person": stay.patient_id,
        # A date column cannot hold an invalid date; the export has it as text in another column.
        "start": stay.admit if isinstance(stay.admit, dt.date) else None,
        "start_text": str(stay.admit),
        "stop": stay.discharge,
        "setting": kinds.get(stay.kind, "??"),
    }
    empty = {"dx": None, "dx_role": None, "px": None, "px_date": None}
    rows = [plain | empty | {"dx": code, "dx_role": kind} for code, kind in stay.diagnoses]
    rows += [
        plain | empty | {"px": _PROCEDURES["columnar"][kind], "px_date": date}
        for kind, date in stay.procedures
    ]
    return rows or [plain | empty]


def _columnar(registry: Registry, folder: Path, rng: np.random.Generator) -> None:
    stays = _shuffled([row for stay in registry.stays for row in _columnar_rows(stay)], rng)
    _write_parquet(folder / "visits.parquet", stays)
    clinical = [
        {
            "person": row["patient_id"],
            "scan": row["study_date"],
            "order_number": row["accession_number"],
            "age": row["age_years"],
            "gender": {"M": "M", "F": "F", None: "X"}[row["sex"]],
            "bmi": row["bmi_kg_m2"],
            **{name: row[name] for name in _YES_NO},
        }
        for row in registry.clinical
    ]
    _write_parquet(folder / "baseline.parquet", _shuffled(clinical, rng))
    died = _shuffled([{"person": p, "death": d} for p, d in registry.deaths], rng)
    _write_parquet(folder / "deaths.parquet", died, ("death",))
    follow = [
        {"person": p, "observed_to": covered, "left_on": moved}
        for p, covered, moved in registry.follow_up
    ]
    _write_parquet(folder / "persons.parquet", follow, ("observed_to", "left_on"))
    _write_parquet(folder / "spect.parquet", list(registry.perfusion))
    _write_parquet(folder / "readings.parquet", list(registry.readings))


#: Writers by name of the dialect.
DIALECTS: dict[str, Callable[[Registry, Path, np.random.Generator], None]] = {
    "abstracts": _abstracts,
    "flat": _flat,
    "columnar": _columnar,
}


def _shuffled(rows: Rows, rng: np.random.Generator) -> list[dict[str, Any]]:
    return [dict(rows[int(n)]) for n in rng.permutation(len(rows))]


def _with_days(rows: Rows, day: Callable[[object], str]) -> list[dict[str, Any]]:
    return [{**row, "study_date": day(row["study_date"])} for row in rows]


def _csv(rows: Rows, delimiter: str, header: Iterable[str] = ()) -> bytes:
    names = list(rows[0]) if rows else list(header)
    text = io.StringIO()
    writer = csv.DictWriter(text, names, delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")


def _write_csv(
    path: Path, rows: Rows, delimiter: str, *, header: Iterable[str] = (), cut: int = 0
) -> None:
    """Write rows, with `cut` truncated lines inserted."""
    lines = _csv(rows, delimiter, header).splitlines(keepends=True)
    for n in range(cut):
        at = 1 + (n + 1) * len(lines) // (cut + 1)
        lines.insert(at, lines[at].rstrip()[:14] + b"\n")
    path.write_bytes(b"".join(lines))


def _write_parquet(path: Path, rows: Rows, dates: Iterable[str] = ()) -> None:
    """Write rows; without rows, an empty table of `person` and these date columns."""
    schema = pa.schema({"person": pa.string(), **dict.fromkeys(dates, pa.date32())})
    pq.write_table(pa.Table.from_pylist(list(rows)) if rows else schema.empty_table(), path)
