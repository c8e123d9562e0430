"""What the extracts lack as a whole: tables without rows, covariates that nobody gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from cac_core.cohort.gaps import absent_covariates, empty_tables, require_clinical_rows
from cac_core.cohort.mapping import load_mapping
from cac_core.errors import CacError
from tests.builders.registries import MAPPING, make_parts, write_site

CLINICAL = ["P1,2015-06-01,A1,60,M,1,0"]
STAY = ["P1,2016-01-01,2016-01-03,inpatient,I214,M,,"]


def test_a_header_without_rows_is_warned_of_with_what_it_costs(tmp_path: Path) -> None:
    _, parts = make_parts(write_site(tmp_path, clinical=CLINICAL, deaths=["P1,2018-01-01"]),
                          tmp_path / "w")  # fmt: skip
    encounters, follow_up = empty_tables(parts)
    assert encounters == (
        "the encounters table of source encounters has no row: no diagnosis or procedure can "
        "become an event"
    )
    assert follow_up.startswith("the follow_up table of source follow_up has no row: everybody")
    require_clinical_rows(parts)


def test_one_file_without_rows_among_several_is_named(tmp_path: Path) -> None:
    mapping = MAPPING.replace('"encounters.csv"', '"encounters*.csv"')
    path = write_site(tmp_path, mapping, clinical=CLINICAL, encounters=STAY,
                      deaths=["P1,2018-01-01"], follow_up=["P1,2019-01-01,"])  # fmt: skip
    header = (tmp_path / "encounters.csv").read_text().splitlines()[0]
    (tmp_path / "encounters_2017.csv").write_text(header + "\n", encoding="utf-8")
    (warning,) = empty_tables(make_parts(path, tmp_path / "w")[1])
    assert "source encounters has no row from encounters/2" in warning


def test_lines_that_are_no_rows_of_the_table_are_counted(tmp_path: Path) -> None:
    mapping = MAPPING.replace('"deaths.csv"', '"deaths.csv"\nrows_with = ["death_date"]')
    path = write_site(tmp_path, mapping, clinical=CLINICAL, encounters=STAY, deaths=["P1,", "P2,"],
                      follow_up=["P1,2019-01-01,"])  # fmt: skip
    (warning,) = empty_tables(make_parts(path, tmp_path / "w")[1])
    assert "deaths table of source deaths has no row (of 2 lines): no death" in warning


def test_a_clinical_table_without_rows_is_an_error_of_its_own(tmp_path: Path) -> None:
    _, parts = make_parts(write_site(tmp_path, encounters=STAY), tmp_path / "w")
    with pytest.raises(CacError, match=r"clinical table of source clinical has no row") as raised:
        require_clinical_rows(parts)
    assert "header only" in raised.value.what and "min_match_rate" not in str(raised.value)


def test_prior_disease_that_nobody_gives_is_warned_of(tmp_path: Path) -> None:
    mapping = load_mapping(write_site(tmp_path))
    prior, models = absent_covariates(mapping, ["age_years", "bmi_kg_m2", "rest_tpd_pct"])
    assert prior.startswith(
        "no source gives prior_pci or prior_cabg: patients with an earlier PCI or bypass surgery "
        "are NOT excluded"
    )
    assert models.startswith("no source gives bmi_kg_m2, rest_tpd_pct: the models of the plan")
    for name in ("prior_mi", "age_years"):
        lines = [line for line in MAPPING.splitlines() if not line.startswith(name)]
        fewer = load_mapping(write_site(tmp_path, "\n".join(lines)))
        assert any(name in text for text in absent_covariates(fewer, [])), name


def test_covariates_computed_from_others_are_given(tmp_path: Path) -> None:
    given = {"age_years": "birth_date", "prior_mi": "prior_mi"}
    text = MAPPING.replace('age_years = "age"', f'{given["age_years"]} = "age"').replace(
        'diabetes = "diabetes"',
        'diabetes = "diabetes"\nweight_kg = "w"\nheight_cm = "h"\nprior_pci = "x"\nprior_cabg="y"',
    )
    mapping = load_mapping(write_site(tmp_path, text))
    assert not absent_covariates(mapping, ["age_years", "bmi_kg_m2", "prior_mi", "agatston"])
