"""Drafts of mappings: a draft of a known dialect reads its own extract."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cac_core.cohort.mapping import Source
from cac_core.cohort.propose import propose_mapping
from cac_core.errors import UsageError
from cac_core.phantom.registry.dialects import write_extracts
from cac_core.phantom.registry.records import Registry, make_registry
from tests.builders.registries import make_parts


@pytest.fixture(scope="module")
def registry() -> Registry:
    return make_registry(150, 5)


@pytest.mark.parametrize(
    ("dialect", "name", "table"),
    [
        ("abstracts", "clinical.csv", "clinical"),
        ("abstracts", "dad_2013_2019.csv.gz", "encounters"),
        ("abstracts", "vital_statistics.csv", "deaths"),
        ("abstracts", "coverage.csv", "follow_up"),
        ("abstracts", "spect.csv", "perfusion"),
        ("flat", "faelle.csv", "encounters"),
        ("flat", "patienten.csv", "clinical"),
        ("columnar", "visits.parquet", "encounters"),
        ("columnar", "readings.parquet", "readings"),
    ],
)
def test_the_table_and_its_required_columns_are_found(
    dialect: str, name: str, table: str, registry: Registry, tmp_path: Path
) -> None:
    write_extracts(registry, dialect, tmp_path, 1)
    (source,) = tomllib.loads(propose_mapping([tmp_path / name], tmp_path))["source"]
    assert Source.model_validate(source).table == table


def test_a_draft_reads_its_own_extract(registry: Registry, tmp_path: Path) -> None:
    write_extracts(registry, "abstracts", tmp_path, 1)
    path = tmp_path / "draft.toml"
    draft = propose_mapping([tmp_path / "clinical.csv"], tmp_path)
    path.write_text(draft.replace("# end = YYYY-MM-DD", "end = 2019-12-31"), encoding="utf-8")
    _, (part,) = make_parts(path, tmp_path / "w")
    assert part.n_rows >= len(registry.clinical) - 3
    smokers = sum(row["smoking"] for row in pq.read_table(part.rows).to_pylist())
    assert smokers == sum(row["smoking"] for row in registry.clinical)


def test_unknown_codes_are_listed(registry: Registry, tmp_path: Path) -> None:
    write_extracts(registry, "flat", tmp_path, 1)
    assert "unknown: 1, 2, 9;" in propose_mapping([tmp_path / "patienten.csv"])
    assert "unknown: unbekannt;" in propose_mapping([tmp_path / "faelle.csv"])


def test_no_identifier_is_in_a_draft(registry: Registry, tmp_path: Path) -> None:
    write_extracts(registry, "abstracts", tmp_path, 1)
    draft = propose_mapping([tmp_path / "clinical.csv"])
    for row in registry.clinical:
        assert row["patient_id"] not in draft
        assert row["accession_number"] not in draft


@pytest.mark.parametrize(
    ("text", "reported"), [("", "Nothing in"), ("shoe,size\n1,2\n", "Nothing in")]
)
def test_a_file_without_known_columns_is_reported(text: str, reported: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=reported):
        propose_mapping([tmp_path / "x.csv"])


def test_a_draft_shows_only_common_codes(tmp_path: Path) -> None:
    path = tmp_path / "Erika Mustermann.csv"
    path.write_text("id,scan_date,sex\nP1,2015-06-01,MUSTERMANN-77\nP2,2015-06-02,F\n", "utf-8")
    draft = propose_mapping([path])
    assert "MUSTERMANN" not in draft and "unknown: AAAAAAAAAA-99;" in draft
    assert draft.count("Mustermann") == 1  # the file must be named for the mapping to find it
    assert 'name = "clinical"' in draft
