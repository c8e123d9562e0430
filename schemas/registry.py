"""Canonical registry tables: the common form of every site's extracts."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from schemas.table import ColumnSpec, TableSpec

#: Coding systems of diagnoses. National modifications of ICD-10 (CA, CM, GM, AM, SE) are `ICD-10`.
DIAGNOSIS_SYSTEMS = ("ICD-10", "ICD-9-CM", "other")
PROCEDURE_SYSTEMS = (
    *("CCI", "ICD-10-PCS", "OPCS-4", "OPS", "NOMESCO", "ICD-9-CM", "CPT", "other"),
)
_PATIENT = ColumnSpec("patient_id", pa.string(), "the registry's patient identifier")
_STUDY_DATE = ColumnSpec("study_date", pa.date32(), "date of the SPECT/CT study")


def _yes_no(name: str, description: str) -> ColumnSpec:
    return ColumnSpec(name, pa.int8(), description, unit="0/1", nullable=True, ge=0, le=1)


def _percent(name: str, description: str, ge: float = 0) -> ColumnSpec:
    return ColumnSpec(name, pa.float64(), description, unit="%", nullable=True, ge=ge, le=100)


def _agatston(name: str, description: str) -> ColumnSpec:
    return ColumnSpec(name, pa.float64(), description, unit="1", nullable=True, ge=0, le=50_000)


CLINICAL = TableSpec(
    "clinical",
    "Patient characteristics at the time of the study.",
    (
        _PATIENT,
        _STUDY_DATE,
        ColumnSpec("accession_number", pa.string(), "the study's accession number", nullable=True),
        ColumnSpec("age_years", pa.float64(), "age at the study", "years", True, ge=1, le=120),
        ColumnSpec("sex", pa.string(), "sex as recorded", nullable=True, codes=("F", "M")),
        ColumnSpec("bmi_kg_m2", pa.float64(), "body mass index", "kg/m2", True, ge=8, le=100),
        _yes_no("hypertension", "history of hypertension"),
        _yes_no("diabetes", "history of diabetes mellitus"),
        _yes_no("dyslipidemia", "history of dyslipidemia"),
        _yes_no("family_history", "family history of premature coronary disease"),
        _yes_no("smoking", "current smoker"),
        _yes_no("prior_mi", "myocardial infarction before the study"),
        _yes_no("prior_pci", "percutaneous coronary intervention before the study"),
        _yes_no("prior_cabg", "coronary artery bypass grafting before the study"),
    ),
    unique_together=("patient_id", "study_date"),
)

#: Plausible ranges of the inputs that columns of `clinical` are computed from.
AUXILIARY_RANGES = (
    ColumnSpec("weight_kg", pa.float64(), "body weight", "kg", True, ge=2, le=400),
    ColumnSpec("height_cm", pa.float64(), "body height", "cm", True, ge=40, le=250),
)

PERFUSION = TableSpec(
    "perfusion",
    "Quantitative SPECT perfusion and function.",
    (
        _PATIENT,
        _STUDY_DATE,
        _percent("stress_tpd_pct", "total perfusion deficit at stress, attenuation-corrected"),
        _percent("rest_tpd_pct", "total perfusion deficit at rest, attenuation-corrected"),
        _percent("stress_lvef_pct", "left ventricular ejection fraction after stress", ge=1),
    ),
    unique_together=("patient_id", "study_date"),
)

ENCOUNTERS = TableSpec(
    "encounters",
    "Discharge abstracts and ambulatory records, many rows per patient.",
    (
        _PATIENT,
        ColumnSpec("admit_date", pa.date32(), "date of admission or visit", nullable=True),
        ColumnSpec("discharge_date", pa.date32(), "date of discharge", nullable=True),
        ColumnSpec(
            "record_type",
            pa.string(),
            "kind of record",
            nullable=True,
            codes=("inpatient", "emergency", "ambulatory"),
        ),
        ColumnSpec("diagnosis_code", pa.string(), "diagnosis code", nullable=True),
        ColumnSpec("diagnosis_type", pa.string(), "role of the diagnosis", nullable=True),
        ColumnSpec("procedure_code", pa.string(), "procedure code", nullable=True),
        ColumnSpec("procedure_date", pa.date32(), "date of the procedure", nullable=True),
        ColumnSpec(
            "diagnosis_system",
            pa.string(),
            "coding system of the diagnosis; null if not stated",
            nullable=True,
            codes=DIAGNOSIS_SYSTEMS,
        ),
        ColumnSpec(
            "procedure_system",
            pa.string(),
            "coding system of the procedure; null if not stated",
            nullable=True,
            codes=PROCEDURE_SYSTEMS,
        ),
    ),
)

DEATHS = TableSpec(
    "deaths",
    "Vital statistics: one row per death.",
    (_PATIENT, ColumnSpec("death_date", pa.date32(), "date of death")),
    unique_together=("patient_id",),
)

FOLLOW_UP = TableSpec(
    "follow_up",
    "Observation period of a patient, if it differs from the general coverage.",
    (
        _PATIENT,
        ColumnSpec("coverage_end", pa.date32(), "last day of observation", nullable=True),
        ColumnSpec("emigration_date", pa.date32(), "day of emigration", nullable=True),
    ),
    unique_together=("patient_id",),
)

READINGS = TableSpec(
    "readings",
    "Calcium readings by human readers: expert annotation and visual estimate.",
    (
        _PATIENT,
        _STUDY_DATE,
        ColumnSpec("reader", pa.string(), "pseudonym of the reader"),
        ColumnSpec("method", pa.string(), "kind of reading", codes=("expert", "visual")),
        _agatston("agatston", "Agatston score of all coronary arteries"),
        _agatston("agatston_lm", "Agatston score of the left main"),
        _agatston("agatston_lad", "Agatston score of the left anterior descending"),
        _agatston("agatston_lcx", "Agatston score of the left circumflex"),
        _agatston("agatston_rca", "Agatston score of the right coronary artery"),
        ColumnSpec(
            "visual_grade",
            pa.string(),
            "visual estimate of coronary calcium",
            nullable=True,
            codes=("absent", "equivocal", "present", "extensive"),
        ),
    ),
    unique_together=("patient_id", "study_date", "reader", "method"),
)

REGISTRY_TABLES = (CLINICAL, PERFUSION, ENCOUNTERS, DEATHS, FOLLOW_UP, READINGS)
#: Origin of a canonical row, so that later checks can name file and line.
PROVENANCE = (
    ColumnSpec("source_file", pa.string(), "source, and the number of the file in it"),
    ColumnSpec("source_line", pa.int64(), "line of the file; row, for formats without lines", ge=1),
)


def stored_table(table: TableSpec) -> TableSpec:
    """A canonical table as stored in `registry/<table>/`, with the provenance of each row.

    Uniqueness of rows is checked over all parts, not in each.
    """
    return replace(table, columns=(*table.columns, *PROVENANCE), unique_together=())
