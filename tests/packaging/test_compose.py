"""The compose file is valid and closed, as far as this can be checked without starting it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from cac_core.version import __version__
from flows.deployment.units import SERVER_UNIT, UnitsRequest, units

REPOSITORY = Path(__file__).resolve().parents[2]
FILE = REPOSITORY / "compose.yaml"
CONTENT: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = CONTENT["services"]


def test_it_is_valid_and_a_linter_of_its_security_finds_nothing_high() -> None:
    beside = Path(sys.executable).parent
    for command in (
        ("check-jsonschema", "--builtin-schema", "vendor.compose-spec"),
        ("compose-lint", "--fail-on", "high"),
    ):
        done = subprocess.run(
            [beside / command[0], *command[1:], FILE], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_images_are_pinned_and_ours_is_of_this_version() -> None:
    for name, service in SERVICES.items():
        image, _, tag = service["image"].rpartition(":")
        assert tag[0].isdigit() and "." in tag, name
        assert image != "cac-cohort" or tag == __version__, name


def test_secrets_are_files_and_ports_are_on_loopback() -> None:
    assert all(set(secret) == {"file"} for secret in CONTENT["secrets"].values())
    for name, service in SERVICES.items():
        variables = service["environment"]
        secret = ("PASSWORD", "KEY", "AUTH", "CONNECTION_URL")
        held = [key for key in variables if any(word in key for word in secret)]
        assert not [key for key in held if not key.endswith("_FILE")], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
    inside = {name for name, one in CONTENT["networks"].items() if one.get("internal")}
    assert {name: set(one["networks"]) - inside for name, one in SERVICES.items()} == {
        "postgres": set(), "server": {"host"}, "register": set(), "worker": set(),
    }  # fmt: skip


def test_the_server_has_the_settings_of_the_unit(tmp_path: Path) -> None:
    config = tmp_path / "cac.toml"
    config.write_text('archive = ["archive"]\nwarehouse = "wh"\n', encoding="utf-8")
    text = units(UnitsRequest(tmp_path, str(config)))[SERVER_UNIT]
    lines = [line.partition("=")[2] for line in text.splitlines() if line.startswith("Environm")]
    unit = dict(line.split("=", 1) for line in lines if "=" in line)
    own = {name for name in unit if name.endswith(("_HOME", "_PATH", "_CONNECTION_URL"))}
    held = SERVICES["server"]["environment"]
    assert {name: held.get(name) for name in unit if name not in own} == {
        name: value for name, value in unit.items() if name not in own
    }
