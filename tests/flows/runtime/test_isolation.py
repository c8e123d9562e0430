"""Variables, files and folders meant for other programs do not affect a run."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from cac_core.errors import CacError
from flows.runtime.environment import (
    ask_site_api,
    prepare_caches,
    prepare_environment,
    private_folder,
    site_reporting,
)
from flows.runtime.isolation import flag, isolated_settings, working_folder
from tests.flows.conftest import Cac

#: Imports Prefect as a run without a site's server does, and tells what it then believes.
_SETTINGS = """
import os, httpx
from flows.runtime.environment import site_reporting
with site_reporting():
    from prefect.settings import get_current_settings
    s = get_current_settings()
    print(s.api.url, s.api.key, s.server.ephemeral.enabled, s.profiles_path.name)
    print(s.server.database.connection_url.get_secret_value())
    print({n for n in os.environ if n.lower().endswith("_proxy")} - {"no_proxy", "NO_PROXY"})
    httpx.Client(base_url="http://127.0.0.1:1/api")
    print("client")
print(os.environ.get("ALL_PROXY"), os.environ.get("NO_PROXY"), os.environ.get("PREFECT_API_KEY"))
"""


def believed(folder: Path, home: Path, **variables: str) -> list[str]:
    """What Prefect believes in this folder with these variables."""
    done = subprocess.run(
        [sys.executable, "-c", _SETTINGS],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(Path.cwd())}
        | variables,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and no variable of Prefect."""
    for name in list(os.environ):
        if name.startswith(("PREFECT_", "XDG_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("flows.runtime.environment._private", None)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    # prepare_environment sets these; have them put back.
    for name in ("PREFECT_HOME", "DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED",
                 "PREFECT_LOGGING_LEVEL", "PREFECT_SERVER_LOGGING_LEVEL",
                 "PREFECT_CLI_WRAP_LINES"):  # fmt: skip
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path / "home"


def test_prefect_settings_of_other_projects_are_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    other = 'url = "https://prefect.example/api"\nkey = "other"\n'
    (folder / "prefect.toml").write_text(f"[api]\n{other}")
    (folder / "pyproject.toml").write_text(f"[tool.prefect.api]\n{other}")
    (folder / ".env").write_text("PREFECT_API_KEY=other\n")
    home = tmp_path / "home"
    profiles = home / ".prefect"
    profiles.mkdir(parents=True)
    (profiles / "profiles.toml").write_text(
        'active = "far"\n[profiles.far]\nPREFECT_API_URL = "https://prefect.example/api"\n'
    )
    lines = believed(
        folder,
        home,
        PREFECT_PROFILE="far",
        PREFECT_API_KEY="other",
        PREFECT_SERVER_DATABASE_CONNECTION_URL="sqlite+aiosqlite:////nowhere/prefect.db",
        PREFECT_HOME=str(profiles),
    )
    assert lines[0] == "None None False no-profiles.toml"
    assert lines[1] == f"sqlite+aiosqlite:///{profiles}/prefect.db"
    assert lines[-1] == "None None other", "the environment is as before"


@pytest.mark.parametrize(
    "variables",
    [
        {"ALL_PROXY": "socks5://127.0.0.1:1"},
        {"all_proxy": "socks5h://127.0.0.1:1", "https_proxy": "nonsense://x"},
        {"HTTP_PROXY": "http://127.0.0.1:notaport"},
        {"HTTP_PROXY": "http://proxy:1", "NO_PROXY": "[::1]:80,fd00::/8,*.local"},
    ],
)
def test_proxies_do_not_affect_the_client_of_the_runs_api(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    lines = believed(tmp_path, tmp_path, **variables)
    assert lines[3] == "client"
    assert lines[4].startswith(variables.get("ALL_PROXY", "None")), "restored"


def test_a_usable_proxy_is_kept_for_the_warehouse(tmp_path: Path) -> None:
    lines = believed(tmp_path, tmp_path, HTTPS_PROXY="http://proxy.example:3128")
    assert lines[2] == "{'HTTPS_PROXY'}"


def test_an_unusable_proxy_of_a_site_is_reported(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example/api")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    code = "from flows.runtime.environment import ask_site_api\nask_site_api()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    last = done.stderr.strip().splitlines()[-1]
    assert "CacError" in last and "httpx[socks]" in last and "ALL_PROXY" in last
    assert ask_site_api.__doc__


def test_a_home_that_cannot_be_written_is_replaced_for_the_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file in the place of the folder: neither root nor anybody else can write below it.
    monkeypatch.setenv("HOME", str(home / "file"))
    (home / "file").write_text("")
    said: list[str] = []
    folder = prepare_environment(said.append)
    assert folder.is_relative_to(private_folder())
    assert stat.S_IMODE(private_folder().stat().st_mode) == 0o700
    assert len(said) == 1 and "XDG_DATA_HOME" in said[0]
    for name in ("MPLCONFIGDIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
    prepare_caches()
    for name in ("MPLCONFIGDIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        assert Path(os.environ[name]).is_relative_to(private_folder())


def test_a_user_without_a_home_is_not_a_fault(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    assert prepare_environment().is_relative_to(private_folder())
    monkeypatch.setenv("MPLCONFIGDIR", "")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    prepare_caches()
    assert os.environ["NUMBA_CACHE_DIR"] == "/mine"


def test_a_killed_run_without_a_home_leaves_no_server(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / f"cac-private-{'0' * 32}"
    (left / "prefect").mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as server:
        entries = [
            {"pid": 2**22 + 1, "created": 0.0},
            {"pid": server.pid, "created": psutil.Process(server.pid).create_time()},
        ]
        (left / "prefect" / "run-1.json").write_text(json.dumps(entries))
        assert private_folder().is_dir()
        server.wait(timeout=20)  # its status went to the one who ended it
    assert not left.exists()


def test_the_home_folder_is_accessible_to_its_owner_only(home: Path) -> None:
    old = os.umask(0)
    try:
        folder = prepare_environment()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        folder.chmod(0o755)  # as an earlier version left it
        os.environ.pop("PREFECT_HOME")
        assert stat.S_IMODE(prepare_environment().stat().st_mode) == 0o700
    finally:
        os.umask(old)


def test_empty_and_relative_folders_are_ignored(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_DATA_HOME", value)
        monkeypatch.setenv("PREFECT_HOME", "")
        assert prepare_environment() == home / ".local" / "share" / "cac-cohort" / "prefect"


def test_a_named_prefect_home_is_not_replaced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("PREFECT_HOME", str(home / "file" / "prefect"))
    with pytest.raises(CacError, match="PREFECT_HOME"):
        prepare_environment()


def test_doctor_names_an_unwritable_prefect_home_and_continues(cac: Cac, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = cac("doctor", "--json", HOME=str(tmp_path / "file"), PREFECT_API_URL=None)
    assert outcome.code == 1
    found = {check["name"]: check for check in outcome.json["checks"]}
    assert not found["Prefect home"]["ok"]
    assert "XDG_DATA_HOME" in found["Prefect home"]["found"]
    assert found["Prefect API"]["ok"] and found["weights"]["ok"]


def test_a_run_restores_the_environment(home: Path) -> None:
    os.environ["PREFECT_API_KEY"] = "site"
    try:
        with isolated_settings(home):
            assert "PREFECT_API_KEY" not in os.environ
            os.environ["NEW"] = "1"
        assert os.environ["PREFECT_API_KEY"] == "site" and "NEW" not in os.environ
    finally:
        del os.environ["PREFECT_API_KEY"]


def test_the_current_folder_can_be_removed(home: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    back = Path.cwd()
    os.chdir(gone)
    try:
        shutil.rmtree(gone)
        assert working_folder() == Path("/")
        with site_reporting() as ask:
            assert ask is None
    finally:
        os.chdir(back)


def test_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAC_DEBUG", raising=False)
    assert not flag("CAC_DEBUG")
