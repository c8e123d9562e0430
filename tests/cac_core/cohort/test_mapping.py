"""Mappings: what is accepted, and how a wrong one is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from cac_core.cohort.mapping import load_mapping
from cac_core.errors import UsageError
from tests.builders.registries import MAPPING, write_site


@pytest.mark.parametrize(
    ("old", "new", "reported"),
    [
        ('age_years = "age"', 'shoe = "age"', "source clinical: `clinical` has no column shoe"),
        ('patient_id = "id"', "", "source clinical: column patient_id is not mapped"),
        ('sex = "sex"', 'sex = { column = "s", codes = { X = "?" } }', "`sex` cannot be '?'"),
        ('age_years = "age"', 'age_years = { column = "a", unit = "stone" }', "unit 'stone'"),
        ('age_years = "age"', 'age_years = { unit = "" }', "give either `column` or `constant`"),
        ('table = "deaths"', 'table = "dead"', "source deaths.table"),
        ('table = "deaths"', 'table = "deaths"\nencoding = "hex"', "no encoding 'hex'"),
        ("end = 2019-12-31", "", "coverage.end"),
        ("end = 2019-12-31", "end = 2019-13-31", "is not valid TOML"),
        ('name = "deaths"', 'name = "clinical"', "two sources have the same name"),
        ('site = "test"', 'site = "test"\nsecret = 1', "secret"),
    ],
)
def test_a_wrong_mapping_is_reported_with_the_place(
    old: str, new: str, reported: str, tmp_path: Path
) -> None:
    assert old in MAPPING
    path = write_site(tmp_path, MAPPING.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        load_mapping(path)
    assert reported in str(caught.value)
    assert "site.toml" in str(caught.value)


def test_a_missing_mapping_suggests_a_draft(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cac link --propose"):
        load_mapping(tmp_path / "none.toml")


def test_every_numbered_column_is_required(tmp_path: Path) -> None:
    repeated = 'table = "encounters"\n[[source.repeated]]\ncount = 2\n'
    repeated += 'columns = { diagnosis_code = "DX{n}" }'
    mapping = MAPPING.replace('table = "encounters"', repeated).replace('diagnosis_code = "dx"', "")
    # TOML wants plain keys before tables of tables.
    mapping = mapping.replace('files = "encounters.csv"\n', "").replace(
        'name = "encounters"', 'name = "encounters"\nfiles = "encounters.csv"'
    )
    source = load_mapping(write_site(tmp_path, mapping)).source[1]
    assert {"DX1", "DX2"} <= set(source.wanted)


def test_the_digest_ignores_the_location_of_files(tmp_path: Path) -> None:
    one, other, moved = (
        load_mapping(write_site(tmp_path / str(n), text)).source[0].digest
        for n, text in enumerate(
            (
                MAPPING,
                MAPPING.replace('sex = "sex"', 'sex = "gender"'),
                MAPPING.replace('"clinical.csv"', '"elsewhere/clinical*.csv"'),
            )
        )
    )
    assert one == moved != other
