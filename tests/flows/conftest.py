"""A synthetic archive, scored once through the command line, for all tests of the flows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cac_core.phantom.archive.write import write_archive

SECRET = "a secret used by the tests only"
Cac = Callable[..., "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which must be one JSON object and nothing else."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


_SERVER = """
import os, sys
from flows.runtime.environment import prefect_api, prepare_environment
with prefect_api(prepare_environment()) as ready:
    ready()
    print(os.environ["PREFECT_API_URL"], os.environ["PREFECT_API_AUTH_STRING"], flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of a user who has set a secret, at a site with a Prefect server.

    To start a server takes longer than most runs. `PREFECT_API_URL=None` in a call of `cac` takes
    it out: then the run has a server of its own, as on a machine where nothing is set up.
    """
    home = tmp_path_factory.mktemp("home")
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    variables = kept | {"HOME": str(home), "CAC_LINKAGE_KEY": SECRET, "COLUMNS": "100"}
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin and server.stdout
        url, password = server.stdout.readline().split()
        yield variables | {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": password}
        server.stdin.close()
    assert server.returncode == 0


@pytest.fixture(scope="session")
def cac(environment: dict[str, str]) -> Cac:
    """Run `cac` as a user does, in a process of its own.

    Only commands that fan work out know of the site's Prefect server; to others it is named in the
    call, for they take three times as long with it.
    """

    def run(*arguments: object, timeout: float = 300, **changes: str | None) -> Outcome:
        if arguments and arguments[0] in ("link", "analyse", "report"):
            changes = {"PREFECT_API_URL": None, "PREFECT_API_AUTH_STRING": None} | changes
        variables = {k: v for k, v in (environment | changes).items() if v is not None}
        command = [str(Path(sys.executable).with_name("cac")), *map(str, arguments)]
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@dataclass(frozen=True)
class Scored:
    """An archive with its truth, and the warehouse and summary of its first run."""

    archive: Path
    truth: Path
    warehouse: Path
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory, cac: Cac) -> Scored:
    """Eight synthetic studies, one with a planted defect, after their first `cac score`."""
    folder = tmp_path_factory.mktemp("cohort")
    archive, truth, warehouse = (folder / name for name in ("archive", "truth.parquet", "wh"))
    write_archive(archive, studies=8, seed=3, truth_path=truth, workers=2)
    outcome = cac("score", archive, "-w", warehouse, "--json", PREFECT_API_URL=None)
    assert outcome.code == 0, outcome.err
    return Scored(archive, truth, warehouse, outcome.json)
