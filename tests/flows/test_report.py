"""`cac report` as an investigator uses it: files, reruns, reviews, exit codes, faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cac_core.analysis.plan import shipped_plan_text
from cac_core.cohort.warehouse import Warehouse
from cac_core.keys import Keyring
from cac_core.phantom.registry.dialects import write_extracts
from cac_core.phantom.registry.records import make_registry
from schemas.preview import PREVIEWS
from schemas.results import DISCREPANCIES, ESTIMATES
from schemas.score import SCORES
from tests.builders.registries import fill_warehouse
from tests.builders.rows import preview_row
from tests.flows.conftest import SECRET, Cac


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory, cac: Cac) -> Path:
    """A warehouse with 600 linked patients and a picture of every study."""
    folder = tmp_path_factory.mktemp("site")
    registry = make_registry(600, 8)
    store = fill_warehouse(folder / "wh", registry, Keyring(SECRET.encode()))
    keys = store.read(SCORES).to_pylist()
    store.replace(
        PREVIEWS,
        PREVIEWS.from_rows(
            [
                preview_row(study_key=row["study_key"], protocol_digest=row["protocol_digest"])
                for row in keys
            ]
        ),
        "test-1",
    )
    mapping = write_extracts(registry, "abstracts", folder / "extracts", 1)
    done = cac("link", "-w", folder / "wh", "--mapping", mapping, "-q", "--json")
    assert done.code == 0, done.err
    return folder / "wh"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped plan with fewer resamples, outcomes and components."""
    path = tmp_path_factory.mktemp("plan") / "plan.toml"
    text = shipped_plan_text().replace("resamples = 2000", "resamples = 10")
    lines = text.splitlines()
    for name, value in (("outcomes", '["mace", "death"]'), ("components", "[]")):
        at = next(n for n, line in enumerate(lines) if line.startswith(f"{name} ="))
        lines[at] = f"{name} = {value}"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_report_and_its_files(cac: Cac, linked: Path, plan: Path) -> None:
    first = cac("report", "-w", linked, "--plan", plan, "--json", "-q")
    assert first.json["analysis"] == "analysed"
    out = Path(first.json["out"])
    assert out == linked / "reports" / "cohort"
    assert first.code == (3 if first.json["gaps"] else 0), first.err
    files = _files(out)
    assert {"index.html", "report.pdf", "numbers.json", "tables/estimates.parquet"} <= set(files)
    assert "Example cases (Figure 2)" not in first.json["gaps"]
    pages = [name for name in files if name.startswith("studies/")]
    assert len(pages) == first.json["study_pages"] > 4
    text = files["index.html"].decode()
    assert all(f'href="{name}"' in text for name in pages if name in text)
    assert f'href="{pages[0]}"' in text or len(pages) > 4
    # The rows that come from the archive are published with the others.
    estimates = Warehouse(linked).read(ESTIMATES)
    assert estimates.num_rows == first.json["estimates"]
    kinds = set(estimates["analysis"].to_pylist())
    assert {"acquisition", "discrepancy"} <= kinds
    # The scores are of other weights than the installed ones, whose training data say nothing here.
    assert "training" not in kinds


@pytest.mark.slow
def test_a_rerun_and_the_reviews(cac: Cac, linked: Path, plan: Path) -> None:
    out = Path(cac("report", "-w", linked, "--plan", plan, "--json", "-q").json["out"])
    files = _files(out)
    (out / "notes.docx").write_bytes(b"minutes")
    again = cac("report", "-w", linked, "--plan", plan, "--json", "-q")
    assert again.json["analysis"] == "unchanged"
    assert _files(out) == files | {"notes.docx": b"minutes"}
    assert [path.name for path in out.parent.iterdir()] == ["cohort"]  # nothing left aside

    case = Warehouse(linked).read(DISCREPANCIES)["study_key"][0].as_py()
    reviews = linked.parent / "reviews.csv"
    reviews.write_text(f"study_key,cause\n{case},image noise\n{case},valve\n", encoding="utf-8")
    told = cac("report", "-w", linked, "--plan", plan, "--reviews", reviews, "--json", "-q")
    rows = Warehouse(linked).read(ESTIMATES).to_pylist()
    found = [row for row in rows if str(row["level"]).startswith("reviewed: ")]
    assert {row["level"] for row in found} == {"reviewed: image noise", "reviewed: valve"}
    assert "reviewed: valve" in (Path(told.json["out"]) / "index.html").read_text("utf-8")


@pytest.mark.slow
def test_what_is_missing_is_told_by_the_exit_code(cac: Cac, linked: Path, plan: Path) -> None:
    wanted = plan.with_name("more.toml")
    text = plan.read_text("utf-8").replace('["mace", "death"]', '["mace", "stroke"]')
    wanted.write_text(text, encoding="utf-8")
    out = linked.parent / "elsewhere"
    done = cac("report", "-w", linked, "--plan", wanted, "--out", out, "--journal", "-q")
    assert done.code == 3
    page = (out / "index.html").read_text("utf-8")
    for kind in ("1col.pdf", "1col.tiff", "2col.pdf", "2col.tiff"):
        name = f"figures/journal/figure-survival-mace-dl-{kind}"
        assert (out / name).is_file() and f'href="{name}"' in page
    assert "no outcome `stroke`" in " ".join(done.out.split())
    assert (out / "report.pdf").is_file()
    numbers = json.loads((out / "numbers.json").read_text("utf-8"))
    assert len(numbers["numbers"]) > 1000


@pytest.mark.slow
def test_hidden_counts_hide_single_patients(cac: Cac, linked: Path, plan: Path) -> None:
    out = linked.parent / "outside"
    done = cac("report", "-w", linked, "--plan", plan, "--out", out, "--suppress", "--json", "-q")
    assert done.code == 3 and done.json["study_pages"] == 0
    text = (out / "index.html").read_text("utf-8")
    keys = Warehouse(linked).read(DISCREPANCIES)["study_key"].to_pylist()
    assert not any(key in text for key in keys)
    # The warehouse keeps what the report hides.
    values = Warehouse(linked).read(ESTIMATES).to_pylist()
    assert any(0 < (row["value"] or 0) < 5 for row in values if row["statistic"] == "count")


@pytest.mark.slow
def test_faults_are_told_and_nothing_is_overwritten(cac: Cac, linked: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work", encoding="utf-8")
    done = cac("report", "-w", linked, "--out", mine)
    assert done.code == 2 and "not a cohort report of this version" in done.err
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    done = cac("report", "-w", tmp_path / "nothing")
    assert done.code == 1 and "cac link" in done.err
    reviews = tmp_path / "reviews.csv"
    reviews.write_text("study_key,cause\nMILLER^JOHN,noise\n", encoding="utf-8")
    done = cac("report", "-w", linked, "--reviews", reviews)
    assert done.code == 2 and "1 lines of the reviews" in done.err and "MILLER" not in done.err


def test_the_deployment_runs_the_flow_every_month() -> None:
    text = (Path(__file__).parents[2] / "prefect.yaml").read_text("utf-8")
    deployments = {one["name"]: one for one in yaml.safe_load(text)["deployments"]}
    mine = deployments["cohort-report"]
    assert mine["entrypoint"] == "flows.report.cohort_report"
    assert mine["schedules"][0]["cron"].split()[2] == "1"
