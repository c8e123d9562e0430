"""`cac report --compare` as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cac_core.keys import Keyring
from cac_core.phantom.registry.dialects import write_extracts
from cac_core.phantom.registry.records import make_registry
from tests.builders.registries import fill_warehouse
from tests.flows.conftest import SECRET, Cac


@pytest.fixture(scope="module")
def warehouses(tmp_path_factory: pytest.TempPathFactory, cac: Cac) -> tuple[Path, Path]:
    """Two warehouses of the same people with other scores; one is linked."""
    folder = tmp_path_factory.mktemp("two")
    first = make_registry(120, 8)
    fill_warehouse(folder / "old", first, Keyring(SECRET.encode()))
    mapping = write_extracts(first, "abstracts", folder / "extracts", 1)
    done = cac("link", "-w", folder / "old", "--mapping", mapping, "-q")
    assert done.code == 0, done.err
    fill_warehouse(folder / "new", make_registry(120, 9), Keyring(SECRET.encode()))
    return folder / "old", folder / "new"


def test_a_comparison_is_written_and_written_again(
    cac: Cac, warehouses: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = warehouses
    out = tmp_path / "comparison"
    first = cac("report", "--compare", old, new, "--out", out, "--json")
    assert first.code == 0, first.err
    assert first.json["studies_in_both"] > 50 and first.json["score_changed"] > 0
    assert "No estimates of" in first.json["gaps"]["estimates"]
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert out / "index.html" in kept
    again = cac("report", "--compare", old, new, "--out", out)
    assert again.code == 0 and "studies in another category" in again.out
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == kept
    assert [path.name for path in tmp_path.iterdir()] == ["comparison"]  # nothing left aside


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        (("old", "old"), "is both the old and the new run"),
        (("old", "nowhere"), "is not a warehouse with scores"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    cac: Cac, warehouses: tuple[Path, Path], tmp_path: Path, sides: tuple[str, str], words: str
) -> None:
    named = [warehouses[0].parent / side for side in sides]
    done = cac("report", "--compare", *named, "--out", tmp_path / "out")
    assert done.code == 2 and words in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_is_left_alone(
    cac: Cac, warehouses: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "letters.txt").write_text("dear", encoding="utf-8")
    done = cac("report", "--compare", *warehouses, "--out", tmp_path)
    assert done.code == 2 and "not a comparison of this version" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]
