"""Matching of clinical rows and studies: unique on both sides, independent of the secret."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest

from cac_core.cohort.link import Linkage, link
from cac_core.cohort.outcomes import load_outcomes
from cac_core.keys import Keyring
from tests.builders.registries import (
    KEYRING,
    MAPPING,
    RESOURCES,
    make_parts,
    studies,
    write_site,
)

DAY = dt.date(2015, 6, 1)
LATER = dt.date(2015, 6, 2)
#: Patient, date, accession numbers, whether scored, sex and year of birth as in the header.
Scan = tuple[str | None, dt.date | None, tuple[str, ...], bool, str | None, int | None]


def scan(
    who: str | None,
    date: dt.date | None = DAY,
    *numbers: str,
    scored: bool = True,
    sex: str | None = None,
    born: int | None = None,
) -> Scan:
    return who, date, numbers, scored, sex, born


def _linked(
    folder: Path, scans: list[Scan], keyring: Keyring = KEYRING, **tables: list[str]
) -> Linkage:
    keys = [keyring.study_key(f"1.2.{n}") for n in range(len(scans))]
    scores = pa.table(
        {
            "study_key": keys,
            "patient_key": pa.array(
                [s[0] and keyring.patient_key(s[0]) for s in scans], pa.string()
            ),
            "study_date": pa.array([s[1] for s in scans], pa.date32()),
            "status": ["scored" if s[3] else "rejected" for s in scans],
            "reason": pa.array([None if s[3] else "missing_slices" for s in scans], pa.string()),
            "agatston": pa.array([n + 1.0 if s[3] else None for n, s in enumerate(scans)]),
            "cac_category": pa.array(["1-100" if s[3] else None for s in scans], pa.string()),
        }
    )
    rows = [
        (key, keyring.accession_key(number) if number else None, s[4], s[5])
        for key, s in zip(keys, scans, strict=True)
        for number in s[2] or ("",)
    ]
    accessions = pa.table(
        {
            "study_key": [row[0] for row in rows],
            "accession_key": pa.array([row[1] for row in rows], pa.string()),
            "PatientSex": pa.array([row[2] for row in rows], pa.string()),
            "patient_birth_year": pa.array([row[3] for row in rows], pa.int16()),
        }
    )
    mapping, parts = make_parts(write_site(folder, **tables), folder / "w")
    return link(parts, scores, accessions, mapping, load_outcomes(), keyring, RESOURCES)


def _reported(done: Linkage) -> list[tuple[int, str]]:
    return sorted((row["source_line"], row["reason"]) for row in done.quarantine.to_pylist())


#: Clinical lines, scans; scores of who is in the analysis, and what is set aside (line, reason).
CASES = {
    "two people, one number, a scan of neither": (
        ["P1,2015-06-01,A1,60,M,1,0", "P2,2015-06-01,A1,70,F,1,0"],
        [scan("mistyped", DAY, "A1")],
        {},
        [(2, "shared_accession"), (3, "shared_accession")],
    ),
    "two people, one number, a scan of one": (
        ["P1,2015-06-01,A1,60,M,1,0", "P2,2015-06-01,A1,70,F,1,0"],
        [scan("P1", DAY, "A1")],
        {"P1": 1.0},
        [(2, "shared_accession"), (3, "shared_accession")],
    ),
    "two people, two numbers of one scan": (
        ["P1,2015-06-01,A1,60,M,1,0", "P2,2015-06-01,A2,70,F,1,0"],
        [scan("mistyped", DAY, "A1", "A2")],
        {},
        [(2, "ambiguous_match"), (3, "ambiguous_match")],
    ),
    "a number of years before": (
        ["P1,2013-06-01,A1,60,M,1,0"],
        [scan("mistyped", dt.date(2022, 6, 1), "A1")],
        {},
        [(2, "accession_outside_window")],
    ),
    "a scan of somebody who is on file": (
        ["P1,2015-06-01,A1,60,M,1,0", "P2,2016-06-01,,70,F,1,0"],
        [scan("P2", DAY, "A1")],
        {},
        [(2, "conflicting_match")],
    ),
    "either number of a scan leads there": (
        ["P1,2015-06-01,A1,60,M,1,0"],
        [scan("mistyped", DAY, "A0", "A1", "A2")],
        {"P1": 1.0},
        [],
    ),
    "two scans under one number, one that day": (
        ["P1,2015-06-01,A1,60,M,1,0"],
        [scan("P1", LATER, "A1"), scan("P1", DAY, "A1")],
        {"P1": 2.0},
        [],
    ),
    "two scans of a day, reported apart by number": (
        ["P1,2015-06-01,A2,60,M,1,0"],
        [scan("P1", DAY, "A1"), scan("P1", DAY, "A2")],
        {"P1": 2.0},
        [],
    ),
    "two scans of a day, one with a score": (
        ["P1,2015-06-01,,60,M,1,0"],
        [scan("P1", DAY, scored=False), scan("P1", DAY)],
        {"P1": 2.0},
        [],
    ),
    "two scored scans of a day": (
        ["P1,2015-06-01,,60,M,1,0"],
        [scan("P1"), scan("P1")],
        {},
        [(2, "ambiguous_match")],
    ),
    "a scan between two rows": (
        ["P1,2015-06-01,,60,M,1,0", "P1,2015-06-03,,60,M,1,0"],
        [scan("P1", LATER)],
        {},
        [(2, "ambiguous_match"), (3, "ambiguous_match")],
    ),
    "one number in every scan": (
        ["P1,2015-06-01,X,60,M,1,0", "P2,2015-06-01,X,70,F,1,0"],
        [scan("P1", DAY, "X"), scan("P2", DAY, "X")],
        {"P1": 1.0, "P2": 2.0},
        [(2, "shared_accession"), (3, "shared_accession")],
    ),
    "a header of another sex": (
        ["P1,2015-06-01,,60,M,1,0"],
        [scan("P1", sex="F")],
        {},
        [(2, "sex_differs")],
    ),
    "a header of another generation, by number": (
        ["P1,2015-06-01,A1,60,M,1,0"],
        [scan("mistyped", DAY, "A1", sex="M", born=1985)],
        {},
        [(2, "birth_year_differs")],
    ),
    "a header that agrees": (
        ["P1,2015-06-01,,60,M,1,0"],
        [scan("P1", sex="M", born=1954)],
        {"P1": 1.0},
        [],
    ),
    "a header with a filler for the birth": (
        ["P1,2015-06-01,,60,M,1,0"],
        [scan("P1", sex="M", born=1900)],
        {"P1": 1.0},
        [],
    ),
    "a header with a sex that the registry does not know": (
        ["P1,2015-06-01,,60,M,1,0"],
        [scan("P1", sex="O")],
        {"P1": 1.0},
        [],
    ),
    "rows of one number and two sexes": (
        ["P1,2015-06-01,,60,M,1,0", "P1,2017-06-01,,62,F,1,0", "P2,2015-06-01,,60,F,1,0"],
        [scan("P1"), scan("P2")],
        {"P2": 2.0},
        [(2, "sex_differs"), (3, "sex_differs")],
    ),
    "rows of one number and two generations": (
        ["P1,2015-06-01,,60,M,1,0", "P1,2017-06-01,,35,M,1,0"],
        [scan("P1")],
        {},
        [(2, "birth_year_differs"), (3, "birth_year_differs")],
    ),
    "whole years rounded either way are one person's": (
        ["P1,2015-06-01,,60,M,1,0", "P1,2017-05-31,,61,M,1,0"],
        [scan("P1")],
        {"P1": 1.0},
        [],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_match_is_unique_from_both_sides(case: str, tmp_path: Path) -> None:
    lines, scans, scores, aside = CASES[case]
    done = _linked(tmp_path, scans, clinical=lines)
    found = {row["patient_key"]: row["agatston"] for row in done.linked.to_pylist()}
    assert found == {KEYRING.patient_key(who): score for who, score in scores.items()}
    assert _reported(done) == aside
    counts = done.matches.to_pylist()
    assert all(
        row["n_rows"] == row["n_by_key_and_date"] + row["n_by_accession"] + row["n_unmatched"]
        for row in counts
    )


@pytest.mark.parametrize(
    "case",
    [
        "two scored scans of a day",
        "two scans under one number, one that day",
        "two people, two numbers of one scan",
    ],
)
def test_matching_does_not_depend_on_the_secret(case: str, tmp_path: Path) -> None:
    lines, scans, _, _ = CASES[case]
    seen = set()
    for n in range(4):
        done = _linked(tmp_path / str(n), scans, Keyring(b"secret %d" % n), clinical=lines)
        seen.add(str((done.linked["agatston"].to_pylist(), _reported(done))))
    assert len(seen) == 1


@pytest.mark.parametrize(("who", "number"), [("P1", ""), ("P1", "A1"), ("mistyped", "A1")])
def test_a_scan_without_a_date_has_its_own_step(who: str, number: str, tmp_path: Path) -> None:
    """The rest of the cohort is linked."""
    done = _linked(
        tmp_path,
        [scan(who, None, *filter(None, [number])), scan("P2")],
        clinical=["P1,2015-06-01,A1,60,M,1,0", "P2,2015-06-01,,70,F,1,0"],
    )
    steps = {row["patient_key"]: row["step"] for row in done.flow.to_pylist()}
    assert steps[KEYRING.patient_key("P1")] == "no_study_date"
    assert steps[KEYRING.patient_key("P2")] == "included"
    assert done.linked["agatston"].to_pylist() == [2.0]


def test_files_with_the_same_name_keep_their_sources(tmp_path: Path) -> None:
    """Contradicting rows in `a/clinical.csv` and `b/clinical.csv` name the source of each."""
    first, rest = MAPPING.split("[[source]]", 2)[:2], MAPPING.split("[[source]]", 2)[2]
    sources = [
        first[1].replace('"clinical"', f'"{name}"', 1).replace("clinical.csv", f"{name}/c.csv")
        for name in ("a", "b")
    ]
    mapping = "[[source]]".join([first[0], *sources, rest])
    path = write_site(tmp_path, mapping)
    for name, sex in (("a", "M"), ("b", "F")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c.csv").write_text(
            f"id,scan,accession,age,sex,diabetes,prior_mi\nP1,2015-06-01,,60,{sex},1,0\n"
        )
    made, parts = make_parts(path, tmp_path / "w")
    nothing = pa.table({n: pa.array([], pa.string()) for n in ("study_key", "accession_key")})
    done = link(parts, studies(("P1", DAY)), nothing, made, load_outcomes(), KEYRING, RESOURCES)
    assert sorted(done.quarantine["source"].to_pylist()) == ["a", "b"]
    assert set(done.quarantine["reason"].to_pylist()) == {"conflicting_rows"}
