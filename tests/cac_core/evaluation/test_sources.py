"""Pairing two sources of scores, and what comes of it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError, UsageError
from cac_core.evaluation.agreement import compare_sources, estimate_rows
from cac_core.evaluation.sources import Source, pair_sources
from cac_core.keys import Keyring
from schemas.registry import READINGS
from schemas.score import SCORES
from tests.builders.rows import score_row

SECRET = "a secret used by the tests only"
KEYRING = Keyring(SECRET.encode())
DATE = dt.date(2024, 5, 17)
SCORED = [0.0, 20.0, 90.0, 150.0, 300.0, 900.0]
EXPERT = [0.0, 0.0, 80.0, 200.0, 450.0, 1000.0]
GRADES = ["absent", "equivocal", "present", "present", "extensive", "extensive"]


def reading(number: int, **changes: object) -> dict[str, object]:
    row = {
        "patient_id": f"00{number}",
        "study_date": DATE,
        "reader": "a",
        "method": "expert",
        "agatston": EXPERT[number],
    }
    return row | changes


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CAC_LINKAGE_KEY", SECRET)
    store = Warehouse(tmp_path / "wh")
    rows = [
        score_row(
            n,
            patient_key=KEYRING.patient_key(f"00{n}"),
            agatston=score,
            Manufacturer="GE" if n % 2 else None,
        )
        for n, score in enumerate(SCORED)
    ]
    rows.append(score_row("rejected", status="rejected", reason="too_few_slices", agatston=None))
    store.replace(SCORES, SCORES.from_rows(rows), "m1")
    return str(store.url)


@pytest.fixture
def readings(tmp_path: Path) -> Path:
    path = tmp_path / "readings.parquet"
    rows = [reading(n) for n in range(6)]
    rows += [reading(n, reader="b", agatston=EXPERT[n] + 1) for n in range(4)]
    rows += [
        reading(n, method="visual", reader="v", agatston=None, visual_grade=grade)
        for n, grade in enumerate(GRADES)
    ]
    pq.write_table(READINGS.from_rows([*rows, reading(0, patient_id="stranger")]), path)
    return path


def compare(warehouse: str, first: str, second: str, *files: Path) -> dict[str, object]:
    pairs = pair_sources(warehouse, Source.parse(first), Source.parse(second), *files)
    return compare_sources(pairs, ["Manufacturer"])


def test_model_against_a_reader(warehouse: str, readings: Path) -> None:
    result = compare(warehouse, "model", "reader:a", readings)
    assert result["concordance_reference_by_compared"] == [
        [1, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 1, 1],
    ]
    assert (result["reference_zero"], result["reference_zero_scored_zero"]) == (2, 1)
    groups = result["groups"]["Manufacturer"]  # type: ignore[index]
    assert {name: found["n"] for name, found in groups.items()} == {"GE": 3, "not stated": 3}
    models = {row["model"] for row in estimate_rows(result).to_pylist()}
    assert models == {"model against reader:a"}


def test_two_readers_share_only_some_studies(warehouse: str, readings: Path) -> None:
    result = compare(warehouse, "reader:a", "reader:b", readings)
    assert (result["n"], result["only_compared"], result["only_reference"]) == (4, 2, 0)


def test_visual_grades_at_three_levels(warehouse: str, readings: Path) -> None:
    """Equivocal counts as present; 1 to 400 is one level (Supplemental Table 3)."""
    result = compare(warehouse, "model", "visual", readings)
    assert result["concordance_reference_by_compared"] == [[1, 0, 0], [0, 3, 0], [0, 1, 1]]
    assert "r2_log" not in result
    statistics = {row["statistic"] for row in estimate_rows(result).to_pylist()}
    assert statistics == {"kappa_linear"}


def test_readings_as_csv_keep_leading_zeros(warehouse: str, readings: Path, tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    pc.write_csv(pq.read_table(readings), path)
    assert compare(warehouse, "model", "reader:a", path)["n"] == 6


def test_truth_of_a_synthetic_archive(warehouse: str, tmp_path: Path) -> None:
    """Studies are matched by StudyInstanceUID, and planted defects by their reason."""
    store = Warehouse(warehouse)
    rows = store.read(SCORES, "m1").to_pylist()
    rows[0]["study_key"] = KEYRING.study_key("1.2.3")
    rows[6]["study_key"] = KEYRING.study_key("1.2.4")
    store.replace(SCORES, SCORES.from_rows(rows), "m1")
    path = tmp_path / "truth.parquet"
    truth = {
        "study_instance_uid": ["1.2.3", "1.2.4"],
        "agatston": [0.0, 50.0],
        "planted_defect": pa.array([None, "too_few_slices"]),
    }
    pq.write_table(pa.table(truth), path)
    pairs = pair_sources(warehouse, Source("model"), Source("truth"), truth=path)
    result = compare_sources(pairs)
    assert (result["n"], result["defects_planted"], result["defects_found"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("oracle", "model", "Unknown source of scores: 'oracle'"),
        ("model", "reader", "readings of 2 readers.*reader:NAME.*a, b"),
        ("model", "reader:c", "no expert reading of 'c'.*a, b"),
        ("model:m2", "reader:a", "no scores of 'm2'.*m1"),
        ("model", "truth", "needs a file.*--truth"),
    ],
)
def test_unknown_and_ambiguous_sources(
    warehouse: str, readings: Path, first: str, second: str, message: str
) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}"):
        compare(warehouse, first, second, readings)


def test_a_warehouse_of_two_models_asks_which(warehouse: str, readings: Path) -> None:
    store = Warehouse(warehouse)
    store.replace(SCORES, store.read(SCORES, "m1"), "m2")
    with pytest.raises(UsageError, match=r"2 models.*model:ID"):
        compare(warehouse, "model", "reader:a", readings)
    assert compare(warehouse, "model:m1", "model:m2", readings)["kappa_linear"] == 1.0


def test_files_that_are_no_readings(warehouse: str, tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    with pytest.raises(CacError, match="cannot be read"):
        compare(warehouse, "model", "reader:a", path)
    path.write_text("patient_id,study_date\n1,2024-05-17\n")
    with pytest.raises(CacError, match="lacks the columns method, reader"):
        compare(warehouse, "model", "reader:a", path)
    path.write_text("patient_id,study_date,reader,method,agatston\n1,2024-05-17,a,expert,-3\n")
    with pytest.raises(CacError, match="agatston: greater_than_or_equal_to"):
        compare(warehouse, "model", "reader:a", path)
    path.write_text("patient_id,study_date,reader,method,agatston\nx,2024-05-17,a,expert,3\n")
    with pytest.raises(CacError, match="has a score of model and of reader:a"):
        compare(warehouse, "model", "reader:a", path)
