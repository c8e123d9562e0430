"""The dictionary describes every column, in both forms, under one set of names."""

from __future__ import annotations

import json
from itertools import chain

import pytest

from schemas.dictionary import TABLES, dictionary, dictionary_markdown
from schemas.table import TableSpec

#: Columns that the design names; tools outside depend on them.
CONTRACT = {
    "scores": (
        "study_key patient_key study_date status reason agatston agatston_noncoronary "
        "cac_category calcium_volume_mm3 calcium_mass_mg n_lesions heart_volume_ml noise_hu "
        "quality_flags seconds_read seconds_model seconds_score"
    ),
    "series": "KVP ConvolutionKernel SeriesInstanceUID n_slices slice_increment_mm selected reason",
    "clinical": (
        "patient_id study_date age_years sex bmi_kg_m2 hypertension diabetes dyslipidemia "
        "family_history smoking prior_mi prior_pci prior_cabg"
    ),
    "perfusion": "patient_id study_date stress_tpd_pct rest_tpd_pct stress_lvef_pct",
    "encounters": (
        "patient_id admit_date discharge_date record_type diagnosis_code diagnosis_type "
        "procedure_code procedure_date"
    ),
    "deaths": "patient_id death_date",
    "quarantine": "table source source_file source_line column reason value_shape",
    "flow": "patient_key step_number step detail",
    "readings": (
        "patient_id study_date reader method agatston agatston_lm agatston_lad agatston_lcx "
        "agatston_rca visual_grade"
    ),
    "linked": "mace_event mace_days",
    "estimates": (
        "analysis population outcome model term level statistic value ci_low ci_high p_value n "
        "n_events method"
    ),
}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_is_described(table: TableSpec) -> None:
    names = [column.name for column in table.columns]
    assert len({name.lower() for name in names}) == len(names), "columns differ only in case"
    for column in table.columns:
        assert len(column.description) > 5, column.name
        suffix = {"_mm": "mm", "_hu": "HU", "_ml": "ml", "_mg": "mg", "_mm3": "mm3", "_pct": "%"}
        for ending, unit in suffix.items():
            if column.name.endswith(ending):
                assert column.unit == unit, column.name


@pytest.mark.parametrize("table", CONTRACT)
def test_columns_of_the_design(table: str) -> None:
    tables = {item.name: item for item in TABLES}
    names = {column.name for column in tables[table].columns}
    assert set(CONTRACT[table].split()) <= names


def test_json_form() -> None:
    content = json.loads(json.dumps(dictionary()))
    assert set(content["tables"]) == {table.name for table in TABLES}
    assert content["codes"]["Status"]["scored"]


def test_markdown_form() -> None:
    text = dictionary_markdown()
    for name in chain((f"## `{table.name}`" for table in TABLES), ("`no_heart`", "`agatston`")):
        assert name in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert all(line.count("|") in (7, 3) for line in rows), "a cell breaks its row"
