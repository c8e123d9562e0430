"""Messages about unexpected errors name type and place, and no patient."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cac_core.tomlfile import read_toml
from flows.runtime.faults import debugging, describe_fault, hide_paths_below


def reported(function: object, *arguments: object) -> str:
    try:
        function(*arguments)  # type: ignore[operator]
    except (OSError, ImportError, ValueError, AttributeError) as error:
        return describe_fault(error)
    raise AssertionError("nothing was raised")


def test_system_errors_are_reported_with_their_path(tmp_path: Path) -> None:
    text = reported((tmp_path / "lost").read_bytes)
    assert text == f"FileNotFoundError: No such file or directory: {tmp_path / 'lost'}"
    assert reported(__import__, "no_such_module") == "ModuleNotFoundError: module no_such_module"


def test_no_path_of_an_archive_is_reported(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    hide_paths_below(archive)
    text = reported((archive / "DOE^JOHN" / "1.dcm").read_bytes)
    assert text == "FileNotFoundError: No such file or directory"
    (tmp_path / "way").symlink_to(archive)
    assert "DOE" not in reported((tmp_path / "way" / "DOE^JOHN").read_bytes)


def test_texts_of_other_errors_are_not_reported() -> None:
    assert reported(float, "DOE^JOHN") == "ValueError"


def test_the_place_is_the_innermost_in_this_program() -> None:
    text = reported(read_toml, None, "The file", "")
    assert text.startswith("AttributeError (in cac_core.tomlfile.read_toml, line ")


@pytest.mark.parametrize(
    ("value", "on"),
    [
        *((value, False) for value in ("", "0", "false", "FALSE", "no", "Off", " 0 ", "n", "f")),
        *((value, True) for value in ("1", "true", "yes", "on", "2")),
    ],
)
def test_the_variable_switches_debugging_on(
    value: str, on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAC_DEBUG", value)
    assert debugging() is on


@pytest.mark.parametrize(("value", "traceback"), [("0", False), ("off", False), ("1", True)])
def test_a_traceback_is_shown_only_on_request(value: str, traceback: bool) -> None:
    code = """
import os
from flows.cli import main as cli
def run(**options):
    raise PermissionError(13, "Permission denied", "/warehouse/scores")
cli.app = run
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={"CAC_DEBUG": value, "HOME": "/"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert ("Traceback" in done.stderr) is traceback
    if not traceback:
        assert "PermissionError: Permission denied: /warehouse/scores" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
