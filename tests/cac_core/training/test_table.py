"""Training tables: what is refused, how studies are split, and what the digest covers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cac_core.errors import TrainingDataError
from cac_core.training.table import (
    read_training_table,
    rows_of,
    split_digest,
    split_table,
    write_training_table,
)
from schemas.codes import CAC_CATEGORIES
from schemas.training import TRAINING_SET


def table(per_category: int = 25, **changes: object):
    """Studies of four categories; every fifth patient has two."""
    rows = []
    for n in range(4 * per_category):
        row = {
            "study": f"s{n:03d}",
            "annotation": f"s{n:03d}.dcm",
            "reader": "A",
            "patient": f"p{n - 1 if n % 5 == 1 else n}",
            "site": "here" if n % 10 else "away",
            "cac_category": CAC_CATEGORIES[(n // 5) % 4],
            "split": None,
        }
        rows.append(row | changes)
    return TRAINING_SET.from_rows(rows)


def test_equal_numbers_per_category_and_no_patient_in_two_parts() -> None:
    done = split_table(table(), seed=3)
    rows = done.to_pylist()
    for part in ("validation", "internal_test"):
        patients = {row["patient"]: row["cac_category"] for row in rows if row["split"] == part}
        counts = Counter(patients.values())
        assert set(counts) == set(CAC_CATEGORIES)
        assert len(set(counts.values())) == 1
        assert 8 <= sum(row["split"] == part for row in rows) <= 14  # a tenth of a hundred
    by_patient: dict[str, set[str]] = {}
    for row in rows:
        by_patient.setdefault(row["patient"], set()).add(row["split"])
    assert all(len(parts) == 1 for parts in by_patient.values())
    assert split_digest(done) == split_digest(split_table(table(), seed=3))
    assert split_digest(done) != split_digest(split_table(table(), seed=4))


def test_a_site_is_held_out() -> None:
    rows = split_table(table(), seed=1, external_sites=["away"]).to_pylist()
    away = {row["patient"] for row in rows if row["site"] == "away"}
    assert {row["patient"] for row in rows if row["split"] == "external_test"} == away
    with pytest.raises(TrainingDataError, match="No study comes from nowhere"):
        split_table(table(), seed=1, external_sites=["nowhere"])


def test_what_cannot_be_split() -> None:
    with pytest.raises(TrainingDataError, match=r"Category 1-100 has 0 patients"):
        split_table(table(1), seed=1)
    with pytest.raises(TrainingDataError, match="100 rows have no cac_category"):
        split_table(table(cac_category=None), seed=1)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_there_and_back(tmp_path: Path, name: str) -> None:
    done = split_table(table(), seed=1)
    write_training_table(tmp_path / name, done)
    again = read_training_table(tmp_path / name)
    assert again.equals(done)
    assert split_digest(again) == split_digest(done)


def test_a_patient_in_two_parts_is_refused(tmp_path: Path) -> None:
    rows = split_table(table(), seed=1).to_pylist()
    rows[0]["split"], rows[1]["split"] = "training", "validation"  # both of patient p0
    write_training_table(tmp_path / "t.csv", TRAINING_SET.from_rows(rows))
    with pytest.raises(TrainingDataError, match=r"patient in two parts.*study s00"):
        read_training_table(tmp_path / "t.csv")


def test_readers_are_kept_apart() -> None:
    rows = [dict(row, split="training") for row in table().to_pylist()[:4]]
    both = TRAINING_SET.from_rows([*rows, *(dict(row, reader="B") for row in rows)])
    assert len(rows_of(both, "training")) == 8
    assert {row["reader"] for row in rows_of(both, "training", ["B"])} == {"B"}
    assert rows_of(both, "validation") == []


def test_files_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="cannot be read"):
        read_training_table(tmp_path / "absent.csv")
    (tmp_path / "t.parquet").write_bytes(b"nonsense")
    with pytest.raises(TrainingDataError, match="cannot be read"):
        read_training_table(tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("study,annotation,reader,patient\na,b,c,d\na,b,c,d\n")
    with pytest.raises(TrainingDataError, match="violates its schema"):
        read_training_table(tmp_path / "t.csv")
