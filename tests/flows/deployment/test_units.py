"""`cac deployment units`: files that systemd and a shell take, without a secret."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cac_core.errors import UsageError
from flows.deployment.units import (
    SCRIPT,
    SERVER_UNIT,
    WORKER_UNIT,
    UnitsRequest,
    units,
    write_units,
)
from tests.flows.conftest import Cac


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "cac.toml"
    path.write_text('archive = ["archive"]\nwarehouse = "w h"\n', encoding="utf-8")
    return path


def request_for(config: Path, **changes: object) -> UnitsRequest:
    values = {"folder": config.parent / "units", "config": str(config)} | changes
    return UnitsRequest(**values)  # type: ignore[arg-type]


def test_the_units_are_ones_that_systemd_takes(config: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    write_units(request_for(config))
    files = [config.parent / "units" / name for name in (SERVER_UNIT, WORKER_UNIT)]
    checked = subprocess.run(
        [program, "verify", *files], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_linter_finds_nothing_in_the_script(config: Path) -> None:
    write_units(request_for(config))
    beside = Path(sys.executable).parent
    shellcheck = shutil.which("shellcheck", path=f"{beside}:{os.environ['PATH']}")
    assert shellcheck, "it comes with the extra `dev`"
    script = config.parent / "units" / SCRIPT
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert os.access(script, os.X_OK)


def test_a_site_keeps_to_itself_and_survives_a_kill(config: Path) -> None:
    texts = units(request_for(config, port=4300, user="scorer"))
    server, worker = texts[SERVER_UNIT].splitlines(), texts[WORKER_UNIT].splitlines()
    for lines in (server, worker):
        assert "Environment=PREFECT_SERVER_ANALYTICS_ENABLED=false" in lines
        assert "Environment=DO_NOT_TRACK=1" in lines
        assert "Restart=always" in lines
        assert not [line for line in lines if "AUTH_STRING" in line and not line.startswith("#")]
    storage = "prefect.server.concurrency.lease_storage.filesystem"
    assert f"Environment=PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE={storage}" in server
    assert "Environment=PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED=events,flow_runs" in server
    assert [line for line in server if line.endswith("--host 127.0.0.1 --port 4300")]
    assert "Environment=PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30" in worker
    assert "User=scorer" in worker and f'ReadWritePaths="{config.parent}/w h"' in worker


def test_a_key_file_takes_the_place_of_a_secret_in_the_environment(config: Path) -> None:
    secret = "EnvironmentFile=/etc/cac/secret.env"
    assert secret in units(request_for(config))[WORKER_UNIT]
    with config.open("a", encoding="utf-8") as file:
        file.write('key_file = "key"\n')
    assert secret not in units(request_for(config))[WORKER_UNIT]


@pytest.mark.skipif(os.getuid() != 0, reason="the script wants root")
def test_the_password_is_made_once_and_readable_by_root_only(config: Path, tmp_path: Path) -> None:
    write_units(request_for(config))

    def secrets() -> str:
        subprocess.run(
            [tmp_path / "units" / SCRIPT, "secrets"],
            env=os.environ | {"CAC_ETC": str(tmp_path / "etc")},
            check=True,
        )
        files = sorted((tmp_path / "etc").iterdir())
        assert [path.stat().st_mode & 0o777 for path in files] == [0o600, 0o600]
        server, worker = (path.read_text(encoding="utf-8") for path in files)
        assert server == worker.replace("PREFECT_API", "PREFECT_SERVER_API")
        return worker

    first = secrets()
    assert len(first.strip().partition(":")[2]) == 48
    assert secrets() == first


def test_nothing_is_overwritten_and_faults_are_one_line(cac: Cac, config: Path) -> None:
    made = cac("deployment", "units", config.parent / "units", "-c", config, "--json")
    assert made.code == 0 and len(made.json["files"]) == 3, made.err
    again = cac("deployment", "units", config.parent / "units", "-c", config)
    assert again.code == 2 and again.err.count("\n") == 1
    with pytest.raises(UsageError, match="no name of a user"):
        units(request_for(config, user="a; b"))
    no_server = cac("deployment", "register", "-c", config, PREFECT_API_URL=None)
    assert no_server.code == 2 and no_server.err.count("\n") == 1
