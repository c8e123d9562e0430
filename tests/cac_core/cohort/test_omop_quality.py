"""OMOP tables under checks of the OHDSI Data Quality Dashboard, by the names they have there.

What needs the vocabulary tables (`isStandardValidConcept`, `fkDomain`) cannot run without them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import duckdb
import pytest

from cac_core.cohort.export import OMOP_TABLES, export_tables
from cac_core.cohort.outcomes import load_outcomes
from tests.builders.registries import link_extracts, studies, write_site

#: Required fields of the CDM 5.4 by table, with their types; the first is the primary key.
REQUIRED = {
    "person": {
        "person_id": "integer",
        "gender_concept_id": "integer",
        "year_of_birth": "integer",
        "race_concept_id": "integer",
        "ethnicity_concept_id": "integer",
    },
    "observation_period": {
        "observation_period_id": "integer",
        "person_id": "integer",
        "observation_period_start_date": "date",
        "observation_period_end_date": "date",
        "period_type_concept_id": "integer",
    },
    "measurement": {
        "measurement_id": "integer",
        "person_id": "integer",
        "measurement_concept_id": "integer",
        "measurement_date": "date",
        "measurement_type_concept_id": "integer",
    },
    "condition_occurrence": {
        "condition_occurrence_id": "integer",
        "person_id": "integer",
        "condition_concept_id": "integer",
        "condition_start_date": "date",
        "condition_type_concept_id": "integer",
    },
    "procedure_occurrence": {
        "procedure_occurrence_id": "integer",
        "person_id": "integer",
        "procedure_concept_id": "integer",
        "procedure_date": "date",
        "procedure_type_concept_id": "integer",
    },
    "death": {"person_id": "integer", "death_date": "date"},
}
DATES = {
    "measurement": "measurement_date",
    "condition_occurrence": "condition_start_date",
    "procedure_occurrence": "procedure_date",
    "death": "death_date",
}
TYPES = {"integer": ("TINYINT", "SMALLINT", "INTEGER", "BIGINT"), "date": ("DATE",)}


@pytest.fixture(scope="module")
def cdm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """Three patients: infarction, then death; early stent; nothing."""
    folder = tmp_path_factory.mktemp("site")
    path = write_site(
        folder,
        clinical=[
            f"P{n},2015-06-01,,{n}0.5,{sex},1,0" for n, sex in ((4, "M"), (5, "F"), (6, "M"))
        ],
        encounters=[
            "P4,2015-06-11,2015-06-12,inpatient,I21.0,M,,",
            "P5,2015-06-21,2015-06-22,inpatient,,,K49.1,2015-06-21",
        ],
        deaths=["P4,2015-07-01"],
    )
    scans = studies(*((f"P{n}", dt.date(2015, 6, 1)) for n in (4, 5, 6)))
    done, _ = link_extracts(path, folder / "w", scans)
    tables = export_tables(done.linked, done.events, load_outcomes(), "omop", "TEST")
    with duckdb.connect(":memory:") as connection:
        for name, table in tables.items():
            connection.register(name, table)
        yield connection


def _count(cdm: duckdb.DuckDBPyConnection, query: str) -> int:
    ((found,),) = cdm.sql(query).fetchall()
    return int(found)


def test_tables_hold_what_happened(cdm: duckdb.DuckDBPyConnection) -> None:
    assert set(OMOP_TABLES) == set(REQUIRED)
    assert _count(cdm, "SELECT count(*) FROM person") == 3
    births = cdm.sql("SELECT year_of_birth, gender_concept_id FROM person ORDER BY 1").fetchall()
    assert births == [(1954, 8507), (1964, 8532), (1974, 8507)]
    assert cdm.sql("SELECT death_date FROM death").fetchall() == [(dt.date(2015, 7, 1),)]
    procedures = "SELECT procedure_date, procedure_source_value FROM procedure_occurrence"
    assert cdm.sql(procedures).fetchall() == [(dt.date(2015, 6, 21), "revascularisation")]
    assert _count(cdm, "SELECT count(*) FROM condition_occurrence") == 1


@pytest.mark.parametrize("table", REQUIRED)
def test_cdm_field_is_required_and_cdm_datatype(table: str, cdm: duckdb.DuckDBPyConnection) -> None:
    """`cdmTable`, `cdmField`, `isRequired`, `cdmDatatype`."""
    types = dict(zip(cdm.table(table).columns, map(str, cdm.table(table).types), strict=True))
    for field, kind in REQUIRED[table].items():
        assert types[field] in TYPES[kind]
        assert _count(cdm, f"SELECT count(*) FROM {table} WHERE {field} IS NULL") == 0


@pytest.mark.parametrize("table", REQUIRED)
def test_is_primary_key_and_is_foreign_key(table: str, cdm: duckdb.DuckDBPyConnection) -> None:
    """`isPrimaryKey` and `isForeignKey`."""
    key = next(iter(REQUIRED[table]))
    assert _count(cdm, f"SELECT count(*) - count(DISTINCT {key}) FROM {table}") == 0
    orphans = f"SELECT count(*) FROM {table} ANTI JOIN person USING (person_id)"
    assert _count(cdm, orphans) == 0


def test_measure_person_completeness(cdm: duckdb.DuckDBPyConnection) -> None:
    """`measurePersonCompleteness`: everybody has an observation period and a measurement."""
    for table in ("observation_period", "measurement"):
        assert _count(cdm, f"SELECT count(*) FROM person ANTI JOIN {table} USING (person_id)") == 0


def test_plausible_values(cdm: duckdb.DuckDBPyConnection) -> None:
    """`plausibleValueLow` and `plausibleValueHigh` of year_of_birth."""
    outside = "year_of_birth < 1850 OR year_of_birth > year(current_date) + 1"
    assert _count(cdm, f"SELECT count(*) FROM person WHERE {outside}") == 0


@pytest.mark.parametrize("table", DATES)
def test_plausible_dates(table: str, cdm: duckdb.DuckDBPyConnection) -> None:
    """`plausibleAfterBirth`, `plausibleBeforeDeath` (60 days) and within the observation period."""
    day = DATES[table]
    joined = f"FROM {table} AS t JOIN person USING (person_id)"
    assert _count(cdm, f"SELECT count(*) {joined} WHERE year(t.{day}) < year_of_birth") == 0
    died = f"FROM {table} AS t JOIN death AS d USING (person_id)"
    assert _count(cdm, f"SELECT count(*) {died} WHERE t.{day} > d.death_date + 60") == 0
    observed = f"FROM {table} AS t JOIN observation_period AS o USING (person_id)"
    within = "o.observation_period_start_date AND o.observation_period_end_date"
    assert _count(cdm, f"SELECT count(*) {observed} WHERE t.{day} NOT BETWEEN {within}") == 0


def test_plausible_start_before_end(cdm: duckdb.DuckDBPyConnection) -> None:
    """`plausibleStartBeforeEnd`."""
    wrong = "observation_period_start_date > observation_period_end_date"
    assert _count(cdm, f"SELECT count(*) FROM observation_period WHERE {wrong}") == 0


def test_plausible_unit_concepts(cdm: duckdb.DuckDBPyConnection) -> None:
    """`plausibleUnitConceptIds`: a standard concept has the unit of its quantity."""
    wrong = "measurement_concept_id = 3038553 AND unit_concept_id <> 9531"
    assert _count(cdm, f"SELECT count(*) FROM measurement WHERE {wrong}") == 0
