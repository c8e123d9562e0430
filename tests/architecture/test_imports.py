"""Direction of imports, and what each command is allowed to load."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cac_core.cohort.warehouse import Warehouse
from schemas.instance import INSTANCES
from tests.builders.rows import run_row

REPOSITORY = Path(__file__).resolve().parents[2]


def test_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:]


def loaded_by(code: str) -> set[str]:
    """Top-level modules in memory after running the code in a new interpreter."""
    report = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-c", report], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return set(run.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module",
    [
        "flows.cli.main",
        "flows.cli.cohort",
        "flows.results",
        "flows.deidentify",
        "flows.fhir",
        "flows.planning",
        "flows.index",
        "flows.status",
        "flows.key_lookup",
        "flows.explain",
        "flows.forget",
        "flows.night",
        "flows.runtime.metrics",
        "flows.request",
        "flows.cli.tables",
        "flows.runtime.environment",
    ],
)
def test_commands_without_a_run_load_neither_prefect_nor_torch(module: str) -> None:
    assert not {"prefect", "torch", "distributed"} & loaded_by(f"import {module}")


def test_the_command_line_loads_no_library_of_tables() -> None:
    """`cac --help` and wrong usage answer at once."""
    slow = {"pyarrow", "pandas", "pandera", "numpy", "duckdb", "pydantic", "fsspec", "pydicom"}
    slow |= {"psutil"}
    assert not slow & loaded_by("import flows.cli.main")


@pytest.mark.parametrize("runs", [0, 2])
def test_status_loads_only_what_it_reads_with(runs: int, tmp_path: Path) -> None:
    """Neither pandas nor the functions of PyArrow that compute: they take longer than the rest."""
    slow = {"pandas", "pandera", "duckdb", "scipy", "pydicom", "matplotlib", "psutil"}
    store = Warehouse(str(tmp_path / "cac"))
    for number in range(runs):
        store.add_run(run_row(number))
    store.replace(INSTANCES, INSTANCES.from_rows([]))
    read = (
        "import sys\n"
        "from flows.status import warehouse_status\n"
        f"assert len(warehouse_status({store.url!r}, None, None).runs) == {runs}\n"
        "assert 'pyarrow.compute' not in sys.modules"
    )
    assert not slow & loaded_by(read)


def test_header_readers_load_neither_pyarrow_nor_pydicom() -> None:
    loaded = loaded_by("import cac_core.dicom.header_worker")
    assert not {"pyarrow", "pydicom", "numpy"} & loaded


def test_a_run_loads_no_torch_outside_its_workers() -> None:
    assert "torch" not in loaded_by("import flows.rescore")


def test_workers_load_no_prefect() -> None:
    assert "prefect" not in loaded_by("import tasks.worker")


def test_no_print_in_the_core() -> None:
    for path in (REPOSITORY / "cac_core").rglob("*.py"):
        assert not re.search(r"\bprint\(", path.read_text(encoding="utf-8")), path
