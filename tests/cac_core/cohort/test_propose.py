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
    ("text", "reported"), [("", "x.csv is empty"), ("shoe,size\n1,2\n", "Nothing in")]
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


def test_a_file_that_is_no_table_is_skipped_and_named(tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("id,scan_date,sex\nP1,2015-06-01,F\n", "utf-8")
    (tmp_path / "Schluessel.txt").write_text("Schlüssel der Extrakte, Stand 2020\n", "utf-8")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "book.xlsx").write_text("no workbook", "utf-8")
    (tmp_path / "cut.csv.gz").write_bytes(b"\x1f\x8b cut")
    skipped: list[str] = []
    draft = propose_mapping([tmp_path], tmp_path, skipped.append)
    assert [source["files"] for source in tomllib.loads(draft)["source"]] == ["patients.csv"]
    assert len(skipped) == 4 and all(line.startswith("skipped: ") for line in skipped)
    for name in ("Schluessel.txt", "empty.csv is empty (0 bytes)", "book.xlsx", "cut.csv.gz"):
        assert any(name in line for line in skipped), name
    assert propose_mapping([tmp_path / "patients.csv", tmp_path / "Schluessel.txt"], tmp_path)
    (tmp_path / "patients.csv").unlink()
    with pytest.raises(UsageError, match=r"None of the 4 files holds .*Schluessel\.txt"):
        propose_mapping([tmp_path])


def test_a_named_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("id,scan_date,sex\nP1,2015-06-01,F\n", "utf-8")
    with pytest.raises(UsageError, match=r"none\.csv cannot be read"):
        propose_mapping([tmp_path / "patients.csv", tmp_path / "none.csv"])


def test_absent_prior_disease_must_be_decided(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,scan_date,sex,Z.n. PCI\nP1,2015-06-01,F,ja\n", "utf-8")
    draft = propose_mapping([tmp_path / "x.csv"])
    assert 'prior_pci = { column = "Z.n. PCI"' in draft
    for name in ("prior_mi", "prior_cabg"):
        assert f'# {name} = ""  # DECIDE: no column looks like it' in draft
