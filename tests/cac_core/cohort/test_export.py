"""Exports: other programs read back the linked values."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pyreadstat
import pytest

from cac_core.cohort.export import export_tables
from cac_core.cohort.export_files import FORMATS, write_tables
from cac_core.cohort.link import Linkage
from cac_core.cohort.outcomes import load_outcomes
from cac_core.errors import CacError, UsageError
from tests.builders.registries import KEYRING, link_extracts, studies, write_site

_ARROW = ("parquet", "csv")
SCAN = dt.date(2015, 6, 1)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Linkage:
    """P1 has an infarction after 10 days and dies after 30; P2 has an early stent; P3 nothing."""
    folder = tmp_path_factory.mktemp("site")
    path = write_site(
        folder,
        clinical=[f"P{n},2015-06-01,,60,{sex},1,0" for n, sex in ((1, "M"), (2, "F"), (3, "F"))],
        encounters=[
            "P1,2015-06-11,2015-06-12,inpatient,I21.0,M,,",
            "P2,2015-06-21,2015-06-22,inpatient,,,K49.1,2015-06-21",
        ],
        deaths=["P1,2015-07-01"],
    )
    return link_extracts(path, folder / "w", studies(*((f"P{n}", SCAN) for n in (1, 2, 3))))[0]


def _export(done: Linkage, shape: str) -> dict[str, pa.Table]:
    return export_tables(done.linked, done.events, load_outcomes(), shape, "TEST")


def test_time_to_event_rows_follow_the_adam_conventions(done: Linkage) -> None:
    rows = _export(done, "adtte")["adtte"].to_pylist()
    by = {(row["USUBJID"], row["PARAMCD"]): row for row in rows}
    first = by[KEYRING.patient_key("P1"), "DEATHMI"]
    assert (first["AVAL"], first["CNSR"], first["ADT"]) == (10.0, 0, dt.date(2015, 6, 11))
    assert first["PARAM"] == "Time to death or myocardial infarction (days)"
    assert first["EVNTDESC"] == "admission with myocardial infarction"
    third = by[KEYRING.patient_key("P3"), "MACE"]
    assert (third["AVAL"], third["CNSR"], third["EVNTDESC"]) == (1674.0, 1, "Censored")
    # Excluded from the outcome without early revascularisation: no row.
    assert len(rows) == 3 * 4 - 1
    assert {code for _, code in by} == {"MACE", "DEATHMI", "DEATH", "MACENOEA"}


def test_omop_tables_refer_to_each_other(done: Linkage) -> None:
    tables = {name: table.to_pylist() for name, table in _export(done, "omop").items()}
    people = {row["person_id"]: row for row in tables["person"]}
    key = KEYRING.patient_key("P1")
    assert people[int(key[:15], 16)] == {
        "person_id": int(key[:15], 16),
        "gender_concept_id": 8507,
        "person_source_value": key,
        "year_of_birth": 1955,
        "race_concept_id": 0,
        "ethnicity_concept_id": 0,
        "gender_source_value": "M",
    }
    for name in ("measurement", "observation_period", "condition_occurrence"):
        assert {row["person_id"] for row in tables[name]} <= people.keys()
    (infarction,) = tables["condition_occurrence"]
    assert infarction["condition_concept_id"] == 4329847
    assert infarction["condition_start_date"] == dt.date(2015, 6, 11)
    ends = {row["observation_period_end_date"] for row in tables["observation_period"]}
    assert ends == {dt.date(2015, 7, 1), dt.date(2019, 12, 31)}
    scores = [r for r in tables["measurement"] if r["measurement_source_value"] == "agatston"]
    assert [r["value_as_number"] for r in scores] == [50.0] * 3


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", ["linked", "adtte", "omop"])
def test_values_survive_every_format(form: str, shape: str, done: Linkage, tmp_path: Path) -> None:
    tables = _export(done, shape)
    paths = write_tables(tables, tmp_path, form)
    read = {
        "parquet": lambda p: pq.read_table(p).to_pandas(),
        "csv": lambda p: pa_csv.read_csv(p).to_pandas(),
        "stata": lambda p: pyreadstat.read_dta(p)[0],
        "xport": lambda p: pyreadstat.read_xport(p)[0],
        "xport5": lambda p: pyreadstat.read_xport(p)[0],
    }[form]
    for (_, table), path in zip(tables.items(), paths, strict=True):
        frame = read(path)
        assert len(frame) == table.num_rows
        # Programs that label only numbers get coded texts as numbers too, at the end.
        for name, short in zip(table.column_names, frame.columns, strict=form in _ARROW):
            for value, back in zip(table[name].to_pylist(), frame[short], strict=True):
                if isinstance(value, int | float):
                    assert back == pytest.approx(value)
                elif isinstance(value, dt.date):
                    assert str(back)[:10] == str(value)
                elif value is not None:
                    assert str(back) == value


def test_labels_hold_the_full_name_of_truncated_columns(done: Linkage, tmp_path: Path) -> None:
    (path,) = write_tables(_export(done, "linked"), tmp_path, "stata")
    meta = pyreadstat.read_dta(path)[1]
    labels = meta.column_names_to_labels
    assert all(len(name) <= 32 for name in labels)
    assert any(v.startswith("mace_no_early_revascularisation_event: 1 if") for v in
               labels.values())  # fmt: skip


def test_stata_has_labels_of_values(done: Linkage, tmp_path: Path) -> None:
    (path,) = write_tables(_export(done, "linked"), tmp_path, "stata")
    frame, meta = pyreadstat.read_dta(path)
    labels = meta.variable_value_labels
    assert labels["diabetes"] == {0: "no", 1: "yes"}
    assert labels["mace_event"] == {0: "censored", 1: "event"}
    categories = [labels["cac_category_n"][value] for value in frame["cac_category_n"]]
    assert categories == frame["cac_category"].tolist() == ["1-100"] * 3
    assert labels["mace_no_early_revasc_event"] == {0: "censored", 1: "event"}


def test_sas_gets_labels_of_values_from_a_program(done: Linkage, tmp_path: Path) -> None:
    (path,) = write_tables(_export(done, "linked"), tmp_path, "xport5")
    assert all(len(name) <= 8 for name in pyreadstat.read_xport(path)[0])
    program = path.with_suffix(".sas").read_text(encoding="ascii")
    assert "0='0' 1='1-100' 2='101-400' 3='>400'" in program
    assert "libname source xport 'linked.xpt';" in program
    assert re.search(r"format .*\bcaccatn\b", program)
    assert max(map(len, program.splitlines())) < 200


def test_unknown_shapes_and_formats_are_reported(done: Linkage, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no shape 'fhir'"):
        _export(done, "fhir")
    with pytest.raises(UsageError, match="no format 'spss'"):
        write_tables({}, tmp_path, "spss")
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(CacError, match="cannot be written"):
        write_tables(_export(done, "linked"), tmp_path / "file", "csv")


def test_csv_text_is_not_a_formula(tmp_path: Path) -> None:
    table = pa.table({"a": ["=HYPERLINK(1)", "plain"], "n": [-1, 2]})
    (path,) = write_tables({"linked": table}, tmp_path, "csv")
    assert path.read_text(encoding="utf-8").splitlines()[1:] == [
        '"\'=HYPERLINK(1)",-1',
        '"plain",2',
    ]
