"""Time zone, locale, current folder, umask, home and proxies do not change the tables."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cac_core.keys import Keyring
from cac_core.phantom.registry.dialects import write_extracts
from cac_core.phantom.registry.records import make_registry
from tests.builders.ct_series import write_ct_series
from tests.builders.registries import fill_warehouse
from tests.flows.conftest import SECRET

_SURROUNDINGS: dict[str, dict[str, str]] = {
    "plain": {"TZ": "UTC", "LC_ALL": "C.UTF-8"},
    "east": {
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": "tr_TR.UTF-8",
        "ALL_PROXY": "socks5://127.0.0.1:9",
    },
    "west": {"TZ": "Etc/GMT+12", "LC_ALL": "C", "PYTHONUTF8": "0", "HTTPS_PROXY": "no such proxy"},
}


def _run(name: str, folder: Path, *arguments: object) -> None:
    """Run `cac` in these surroundings, in a current folder and under a umask of its own."""
    here = folder / f"here {name}"
    here.mkdir(exist_ok=True)
    kept = {"PATH": os.environ["PATH"], "CAC_LINKAGE_KEY": SECRET}
    home = {} if name == "west" else {"HOME": str(folder / name)}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("cac")), *map(str, arguments), "--quiet"],
        env=kept | home | _SURROUNDINGS[name],
        cwd=here,
        umask=0o077 if name == "east" else 0o022,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert not list(here.iterdir())


def _digests(warehouse: Path, *tables: str) -> dict[str, str]:
    paths = [path for table in tables for path in (warehouse / table).rglob("*.parquet")]
    assert paths
    return {
        str(path.relative_to(warehouse)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


@pytest.mark.parametrize("dialect", ["flat", pytest.param("columnar", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_linkage_gives_the_same_bytes(dialect: str, tmp_path: Path) -> None:
    registry = make_registry(60, 8)
    mapping = write_extracts(registry, dialect, tmp_path / "extracts", 1)
    found = []
    for name in _SURROUNDINGS:
        warehouse = tmp_path / f"wh {name}"
        fill_warehouse(warehouse, registry, Keyring(SECRET.encode()))
        _run(name, tmp_path, "link", "-w", warehouse, "--mapping", mapping)
        tables = ("linked", "events", "flow", "matches", "quarantine", "registry")
        found.append(_digests(warehouse, *tables))
    assert found[0] == found[1] == found[2]


def test_an_index_gives_the_same_bytes(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "archive" / "Straße İ")
    found = []
    for name in _SURROUNDINGS:
        warehouse = tmp_path / f"wh {name}"
        _run(name, tmp_path, "index", tmp_path / "archive", "-w", warehouse)
        found.append(_digests(warehouse, "instances", "series"))
    assert found[0] == found[1] == found[2]
