"""`cac analyse` as an investigator uses it: tables, reruns, faults, any way of spreading."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pyarrow as pa
import pytest

from cac_core.analysis.plan import shipped_plan_text
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from cac_core.keys import Keyring
from cac_core.phantom.registry.dialects import write_extracts
from cac_core.phantom.registry.records import make_registry
from flows.analysis import require_valid
from schemas.linked import LINKED
from schemas.results import ANALYSES, DISCREPANCIES, ESTIMATES
from tests.builders.registries import fill_warehouse, link_extracts, studies, write_site
from tests.flows.conftest import SECRET, Cac


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory, cac: Cac) -> Path:
    """A warehouse with 400 linked patients."""
    folder = tmp_path_factory.mktemp("site")
    registry = make_registry(400, 8)
    fill_warehouse(folder / "wh", registry, Keyring(SECRET.encode()))
    mapping = write_extracts(registry, "abstracts", folder / "extracts", 1)
    done = cac("link", "-w", folder / "wh", "--mapping", mapping, "-q", "--json")
    assert done.code == 0, done.err
    return folder / "wh"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped plan with fewer resamples."""
    path = tmp_path_factory.mktemp("plan") / "plan.toml"
    text = shipped_plan_text().replace("resamples = 2000", "resamples = 30")
    path.write_text(text, encoding="utf-8")
    return path


def _estimates(warehouse: Path) -> bytes:
    return (warehouse / "estimates" / "estimates.parquet").read_bytes()


def test_an_analysis_and_its_reruns(cac: Cac, linked: Path, plan: Path) -> None:
    before = {path for path in linked.rglob("*") if path.is_file()}
    dry = cac("analyse", "-w", linked, "--plan", plan, "--dry-run", "--json")
    assert dry.code == 0 and dry.json["dry_run"]
    assert "all: mace, added value, 30 resamples" in dry.json["steps"]
    assert {path for path in linked.rglob("*") if path.is_file()} == before

    first = cac("analyse", "-w", linked, "--plan", plan, "--json")
    assert first.code == 0, first.err
    store = Warehouse(linked)
    estimates = store.read(ESTIMATES)
    assert estimates.num_rows == first.json["estimates"] > 3000
    assert estimates["value"].null_count == first.json["not_estimable"]
    assert store.read(DISCREPANCIES).num_rows > 0
    (run,) = store.read(ANALYSES).to_pylist()
    assert (run["run_id"], run["patients"]) == (first.json["run_id"], first.json["patients"])
    assert json.loads(run["plan"])["resamples"] == 30
    headline = {row["name"]: row for row in first.json["headline"]}
    assert len(headline) == 5 and all(row["value"] is not None for row in headline.values())
    assert "all: mace, hazard ratios:" in first.err  # progress, a line per step

    kept = _estimates(linked)
    again = cac("analyse", "-w", linked, "--plan", plan, "--json")
    assert again.json["outcome"] == "unchanged"
    assert again.json["headline"] == first.json["headline"]
    assert _estimates(linked) == kept and store.read(ANALYSES).num_rows == 1


@pytest.mark.slow
def test_processes_of_a_dask_cluster_give_the_same_bytes_as_threads(
    cac: Cac, linked: Path, plan: Path, tmp_path: Path
) -> None:
    assert cac("analyse", "-w", linked, "--plan", plan, "-q").code == 0
    kept = _estimates(linked)
    settings = tmp_path / "cac.toml"
    settings.write_text(
        f'[analysis]\nplan = "{plan}"\nspread = "dask"\n[cluster]\nworkers = 2\n', encoding="utf-8"
    )
    (linked / "estimates" / "estimates.parquet").unlink()
    done = cac("analyse", "-w", linked, "--config", settings, "--json")
    assert done.code == 0 and done.json["outcome"] == "analysed", done.err
    assert _estimates(linked) == kept


def test_people_read_the_first_numbers_and_no_identifier(
    cac: Cac, linked: Path, plan: Path
) -> None:
    done = cac("analyse", "-w", linked, "--plan", plan)
    assert done.code == 0
    for words in ("First numbers", "adjusted hazard ratio, DL CAC >400", "patients", "warehouse"):
        assert words in done.out
    people = {str(row["patient_id"]) for row in make_registry(400, 8).truth}
    tables = ("estimates", "discrepancies", "analyses")
    published = [path for name in tables for path in (linked / name).rglob("*.parquet")]
    assert len(published) >= len(tables)
    texts = [done.out, done.err, *(path.read_bytes().decode("latin-1") for path in published)]
    assert not any(person in text for person in people for text in texts)


def test_the_shipped_plan_can_be_printed_and_read_back(cac: Cac, tmp_path: Path) -> None:
    shown = cac("analyse", "--show-plan")
    assert shown.code == 0 and shown.out == shipped_plan_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--plan", "nowhere.toml"], 2, "cannot be read"),
        ([], 2, "No warehouse is named"),
        (["-w", "empty"], 1, "Nothing is linked in empty yet. Run `cac link` first."),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    cac: Cac, arguments: list[str], code: int, words: str
) -> None:
    done = cac("analyse", *arguments)
    assert done.code == code
    assert words in done.err and done.err.count("\n") == 1


def test_an_outcome_that_is_not_linked_is_a_reason_and_no_fault(
    cac: Cac, linked: Path, tmp_path: Path
) -> None:
    path = tmp_path / "plan.toml"
    text = shipped_plan_text().replace("resamples = 2000", "resamples = 0")
    path.write_text(text.replace('"death_mi", "death",', '"death", "stroke",'), encoding="utf-8")
    done = cac("analyse", "-w", linked, "--plan", path, "--json")
    assert done.code == 0, done.err
    reasons = {item["reason"] for item in done.json["reasons"]}
    assert "not estimable: the outcome `stroke` is not linked" in reasons


def test_a_table_with_impossible_values_is_told_by_column(tmp_path: Path) -> None:
    """As an earlier version may have linked it."""
    path = write_site(tmp_path / "x", clinical=["P1,2015-06-01,,60,M,1,0"])
    done, _ = link_extracts(path, tmp_path / "w", studies(("P1", dt.date(2015, 6, 1))))
    require_valid(LINKED, done.linked)
    for name, value in (("agatston", float("inf")), ("bmi_kg_m2", 412.0)):
        at = done.linked.column_names.index(name)
        spoilt = done.linked.set_column(at, LINKED.arrow_schema.field(name), pa.array([value]))
        with pytest.raises(CacError, match=rf"holds impossible values: {name}.*cac link"):
            require_valid(LINKED, spoilt)
