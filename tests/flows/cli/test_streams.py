"""Closed, full or limited standard streams: at most one line and an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CAC = str(Path(sys.executable).with_name("cac"))


def shell(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A shell line with `cac` in it, as a user types it."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/", **variables}
    return subprocess.run(
        ["bash", "-c", command.replace("cac ", f"{CAC} ", 1)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("cac schema >&-", "Bad file descriptor"),
        ("cac schema --json >&- <&-", "Bad file descriptor"),
        ("cac schema >/dev/full", "No space left on device"),
        ("cac doctor --settings >/dev/full", "No space left on device"),
        ("cac --help >/dev/full", "No space left on device"),
    ],
)
def test_a_result_that_cannot_be_written_is_reported(line: str, reason: str) -> None:
    done = shell(line)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("cac: The result cannot be written to standard output")
    assert reason in done.stderr


@pytest.mark.parametrize("line", ["cac schema 2>&-", "cac schema 2>/dev/full <&-"])
def test_unwritable_messages_are_ignored(line: str) -> None:
    done = shell(line)
    assert (done.returncode, done.stderr) == (0, "")
    assert "agatston" in done.stdout


def test_an_unreportable_fault_is_an_exit_code() -> None:
    assert shell("cac status -w /nowhere 2>&-").returncode == 1
    assert shell("cac status -w /nowhere >&- 2>&- <&-").returncode == 1


def test_no_file_gets_the_descriptor_of_a_closed_stream(tmp_path: Path) -> None:
    # Whatever a library writes to number 1 or 2 would end up in that file.
    code = f"""
import os
from flows.cli.streams import prepare_streams
prepare_streams()
file = os.open("{tmp_path}/table", os.O_CREAT | os.O_WRONLY)
os._exit(0 if file > 2 else 1)
"""
    command = f"{sys.executable} -c '{code}' <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], check=False, timeout=300).returncode == 0


def test_a_closed_pipe_is_not_a_fault() -> None:
    done = shell("cac schema | head -n 1; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_characters_that_the_terminal_lacks_are_escaped(encoding: str) -> None:
    done = shell(
        "cac status -w /nowhere/Åsa/数据", PYTHONIOENCODING=encoding, PYTHONUTF8="0", LC_ALL="C"
    )
    assert done.returncode == 1
    assert "There is no warehouse" in done.stderr
    code = (
        "from flows.cli.streams import prepare_streams; prepare_streams(); "
        "print('Müller 数据'); import sys; sys.stdout.flush()"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True, check=False, timeout=300,
    )  # fmt: skip
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.strip() == "Müller 数据".encode(encoding, "backslashreplace")


def test_warnings_of_libraries_are_hidden() -> None:
    code = """
import logging, subprocess, sys, warnings
from flows.cli import main as cli
def run(**options):
    import numpy
    numpy.array([1.0]) / 0
    warnings.warn("Port 8787 is already in use")
    logging.getLogger("matplotlib.font_manager").warning("findfont: no such font")
    subprocess.run([sys.executable, "-c", "import warnings; warnings.warn('child')"], check=True)
cli.app = run
cli.main()
"""
    for debugging, reported in (("0", False), ("1", True)):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"CAC_DEBUG": debugging},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        for text in ("divide by zero", "Port 8787", "findfont", "child"):
            assert (text in done.stderr) is reported, done.stderr
