"""Overlap of registry and archive, and likely causes of a small one."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest

from cac_core.cohort.overlap import Overlap, RewrittenIdentifiers, overlap, rewritten_identifiers
from tests.builders.registries import KEYRING, make_parts, studies, write_site

DAY = dt.date(2015, 6, 1)


def _misspelt(folder: Path, archived: list[str], given: list[str]) -> RewrittenIdentifiers:
    path = write_site(folder, clinical=[f"{i},2015-06-01,,60,M,1,0" for i in given])
    return rewritten_identifiers(
        make_parts(path, folder / "w")[1], studies(*((i, DAY) for i in archived)), KEYRING
    )


@pytest.mark.parametrize(
    ("archived", "given", "found"),
    [
        (["0012", "0034", "9999"], ["12", "34", "9999"], RewrittenIdentifiers(2, 0, 2, 0, 0)),
        (["12", "34"], ["0012", "34"], RewrittenIdentifiers(1, 0, 0, 1, 0)),
        (["100101000000"], ["1.00101E+11"], RewrittenIdentifiers(1, 1, 0, 0, 0)),
        (["012"], ["12.0"], RewrittenIdentifiers(1, 0, 0, 0, 1)),
        (["A1"], ["B1"], RewrittenIdentifiers(1, 0, 0, 0, 0)),
        (["A1"], ["a1"], RewrittenIdentifiers(0, 0, 0, 0, 0)),
    ],
)
def test_other_spellings_of_identifiers(
    archived: list[str], given: list[str], found: RewrittenIdentifiers, tmp_path: Path
) -> None:
    assert _misspelt(tmp_path, archived, given) == found
    assert len(found.described()) == sum(
        map(bool, (found.scientific, found.lost_zeros, found.extra_zeros, found.decimal))
    )


def test_the_smaller_side_within_the_common_period_counts(tmp_path: Path) -> None:
    years = [*range(2000, 2016)]
    path = write_site(tmp_path, clinical=[f"P{y},{y}-06-01,,60,M,1,0" for y in years])
    _, parts = make_parts(path, tmp_path / "w")
    scans = studies(*((f"Q{n}", dt.date(2013 + n, 6, 2)) for n in range(5)))
    nothing = pa.table({"n_by_key_and_date": [0], "n_by_accession": [0]})
    assert overlap(parts, scans, nothing, 3) == Overlap(0, 3)  # 2013, 2014, 2015
    one = pa.table({"n_by_key_and_date": [1], "n_by_accession": [1]})
    assert overlap(parts, scans, one, 3).rate == pytest.approx(2 / 3)
    apart = studies(("Q", dt.date(2030, 1, 1)))
    assert overlap(parts, apart, nothing, 3) == Overlap(0, 0)
    assert Overlap(0, 0).rate == 0.0


def test_unscored_studies_count_only_if_none_is_scored(tmp_path: Path) -> None:
    path = write_site(tmp_path, clinical=[f"P{n},2015-06-01,,60,M,1,0" for n in range(9)])
    _, parts = make_parts(path, tmp_path / "w")
    scans = studies(*((f"P{n}", DAY) for n in range(8)))
    status = ["scored"] + ["rejected"] * 7
    mixed = scans.set_column(3, "status", pa.array(status))
    one = pa.table({"n_by_key_and_date": [1], "n_by_accession": [0]})
    assert overlap(parts, mixed, one, 3) == Overlap(1, 1)
    none = scans.set_column(3, "status", pa.array(["rejected"] * 8))
    assert overlap(parts, none, one, 3) == Overlap(1, 8)


def test_no_identifier_is_reported(tmp_path: Path) -> None:
    found = _misspelt(tmp_path, ["00471177"], ["471177", "5.5E+7"])
    assert not any("4711" in text or "5.5E" in text for text in found.described())
