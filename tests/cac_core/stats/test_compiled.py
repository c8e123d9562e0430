"""Machine code is cached if possible, compiled again if any source changes, and never required."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cac_core.stats import compiled as module

CALLEE = """
from stats.compiled import compiled

@compiled
def inner(x):
    return x + {added}
"""
CALLER = """
from stats.compiled import compiled
from stats.callee import inner

@compiled
def outer(x):
    return 2.0 * inner(x)

if __name__ == "__main__":
    from stats.caller import outer as kernel
    print(kernel(1.0), sum(kernel.stats.cache_hits.values()))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "stats"
    folder.mkdir()
    (folder / "__init__.py").touch()
    shutil.copy(module.__file__, folder)
    (folder / "callee.py").write_text(CALLEE.format(added="1.0"))
    (folder / "caller.py").write_text(CALLER)
    return folder


def _run(package: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "stats.caller"],
        cwd=package.parent,
        env={**os.environ, "PYTHONPATH": str(package.parent), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_code_is_kept_until_a_source_of_the_package_changes(package) -> None:
    assert _run(package) == "4.0 0"
    assert _run(package) == "4.0 1"
    (package / "callee.py").write_text(CALLEE.format(added="2.0"))
    assert _run(package) == "6.0 0"


def test_beside_a_read_only_package_code_is_kept_with_the_user(package) -> None:
    # A file where the folder should be: not writable for root either.
    (package / "__pycache__").touch()
    user = {"XDG_CACHE_HOME": str(package.parent / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    assert _run(package, **user) == "4.0 0"
    assert _run(package, **user) == "4.0 1"
    (package / "callee.py").write_text(CALLEE.format(added="2.0"))
    assert _run(package, **user) == "6.0 0"


def test_code_that_can_be_kept_nowhere_is_compiled_again(package) -> None:
    (package / "__pycache__").touch()
    home = package.parent / "home"
    home.touch()
    nowhere = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    assert _run(package, **nowhere) == "4.0 0"
    assert _run(package, **nowhere) == "4.0 0"
