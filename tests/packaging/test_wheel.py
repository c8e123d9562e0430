"""The wheel: what it holds, and that it installs and scores outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cac_core.version import __version__

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("cac_core", "flows", "schemas", "tasks")
pytestmark = pytest.mark.slow


def run(*command: object, **variables: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        list(map(str, command)), cwd=variables.pop("cwd", None), capture_output=True, text=True,
        env=os.environ | variables, check=False, timeout=3600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as a user builds it, from the files that Git tracks."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = run("git", "ls-files", *PACKAGES, "pyproject.toml", "README.md", "LICENSE",
                  "prefect.yaml", cwd=str(REPOSITORY)).splitlines()  # fmt: skip
    for name in tracked:
        place = folder / "source" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((REPOSITORY / name).read_bytes())
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    run(*pip, "--wheel-dir", folder / "dist", folder / "source")
    (made,) = (folder / "dist").iterdir()
    return made


def test_it_holds_every_tracked_file(wheel: Path) -> None:
    tracked = set(run("git", "ls-files", *PACKAGES, cwd=str(REPOSITORY)).splitlines())
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    (deployments,) = held - tracked
    assert deployments.endswith(".data/data/share/cac-cohort/prefect.yaml")
    assert tracked <= held


def test_pipx_installs_it_and_it_scores(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, away from the checkout, as the documents say."""
    pipx = Path(sys.executable).with_name("pipx")
    homes = {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    constraints = f"--constraint {REPOSITORY / 'constraints.txt'}"
    run(pipx, "install", "--python", sys.executable, "--pip-args", constraints, wheel, **homes)
    cac = tmp_path / "bin" / "cac"
    variables = {"HOME": str(tmp_path), "PYTHONPATH": "", "cwd": str(tmp_path)}
    assert run(cac, "--version", **variables) == f"cac {__version__}\n"
    run(cac, "phantom", tmp_path / "archive", "--studies", "2", "--seed", "1", **variables)
    run(cac, "init", "cac.toml", "--archive", "archive", "-w", "wh", "--key-file", "key",
        "--make-key", **variables)  # fmt: skip
    run(cac, "doctor", "--config", "cac.toml", **variables)
    assert '"outcome": "completed"' in run(
        cac, "score", "--config", "cac.toml", "--json", "-q", **variables
    )
