"""The series of an archive that did not change are known, and no others are."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from cac_core.cohort.warehouse import Warehouse
from flows import planning
from flows.index import index
from flows.runtime.progress import RunProgress
from schemas.instance import INSTANCES
from schemas.series import SERIES
from tests.builders.ct_series import write_ct_series

Chosen = list[int]


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Chosen:
    """Grows by the number of instances whenever series are chosen."""
    calls: Chosen = []
    choose = planning._choose_series

    def counted(instances: object, rules: object) -> object:
        calls.append(instances.num_rows)  # type: ignore[attr-defined]
        return choose(instances, rules)  # type: ignore[arg-type]

    monkeypatch.setattr(planning, "_choose_series", counted)
    return calls


@pytest.fixture
def night(tmp_path: Path) -> Callable[[], Warehouse]:
    """Index an archive of two studies, with the settings of the folder; returns the warehouse."""
    for number in (1, 2):
        header = {"SeriesDescription": "CTAC", "StudyInstanceUID": f"1.2.{number}"}
        write_ct_series(
            tmp_path / "archive" / str(number), n_slices=3, series=number, header=header
        )
    config = tmp_path / "cac.toml"
    config.touch()

    def run() -> Warehouse:
        progress = RunProgress(Console(file=io.StringIO()), quiet=True)
        index([str(tmp_path / "archive")], str(tmp_path / "wh"), str(config), progress)
        return Warehouse(tmp_path / "wh")

    return run


def written(tmp_path: Path) -> dict[str, int]:
    paths = (tmp_path / "wh").rglob("*.parquet")
    return {path.name: path.stat().st_mtime_ns for path in paths}


def test_a_night_without_changes_chooses_and_writes_nothing(
    night: Callable[[], Warehouse], chosen: Chosen, tmp_path: Path
) -> None:
    first = night().read(SERIES)
    before = written(tmp_path)
    assert night().read(SERIES).equals(first)
    assert chosen == [6]
    assert written(tmp_path) == before


def test_a_removed_file_changes_its_series(
    night: Callable[[], Warehouse], chosen: Chosen, tmp_path: Path
) -> None:
    night()
    next((tmp_path / "archive" / "2").iterdir()).unlink()
    store = night()
    assert chosen == [6, 5]
    assert sorted(store.read(SERIES)["n_slices"].to_pylist()) == [2, 3]
    assert store.read(INSTANCES).num_rows == 5


def test_other_rules_choose_again(
    night: Callable[[], Warehouse], chosen: Chosen, tmp_path: Path
) -> None:
    assert set(night().read(SERIES)["reason"].to_pylist()) == {"too_few_slices"}
    rules = tmp_path / "rules.toml"
    rules.write_text("[required]\nmin_slices = 3\n")
    (tmp_path / "cac.toml").write_text(f'rules = "{rules}"\n')
    assert "too_few_slices" not in night().read(SERIES)["reason"].to_pylist()
    assert chosen == [6, 6]


@pytest.mark.parametrize("spoil", ["damaged", "of another program", "gone"])
def test_a_table_that_does_not_say_what_it_was_made_from_is_made_again(
    night: Callable[[], Warehouse], chosen: Chosen, tmp_path: Path, spoil: str
) -> None:
    store = night()
    series = store.read(SERIES)
    (path,) = (tmp_path / "wh" / "series").iterdir()
    if spoil == "damaged":
        path.write_bytes(b"PAR1")
    elif spoil == "gone":
        path.unlink()
    else:
        store.replace(SERIES, SERIES.empty())
    assert night().read(SERIES).equals(series)
    assert chosen == [6, 6]
    night()
    assert chosen == [6, 6]
