"""A command that is stopped while it starts says so in one line."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from flows.cli.start import INTERRUPTED
from flows.cli.streams import repeat_interruption

#: Runs a command that gets a signal when it begins to import a module.
_STOPPED = """
import os, sys

module, stop = sys.argv[1], int(sys.argv[2])
sys.argv = ["cac", "status", "-w", "none"]

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), stop)

sys.meta_path.insert(0, Stop())
from flows.cli.start import main
main()
"""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("module", ["flows.cli.main", "rich.box"])
def test_a_signal_during_an_import_leaves_one_line(module: str, stop: signal.Signals) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED, module, str(stop.value)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests may ignore it
    )
    assert (done.returncode, done.stderr) == (1, f"cac: {INTERRUPTED}\n")


def test_a_closed_terminal_does_not_stop_a_command_under_nohup() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED, "flows.cli.main", str(signal.SIGHUP.value)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert done.returncode != 0 and INTERRUPTED not in done.stderr
    assert "none" in done.stderr  # what `cac status` says of the warehouse


def test_an_interruption_in_a_finalizer_is_repeated() -> None:
    """Python prints an exception of a finalizer and goes on: the run would not stop."""
    with pytest.raises(KeyboardInterrupt):
        repeat_interruption(SimpleNamespace(exc_value=KeyboardInterrupt()))
        time.sleep(20)


def test_other_faults_of_finalizers_are_dropped() -> None:
    repeat_interruption(SimpleNamespace(exc_value=ValueError()))
    time.sleep(0.2)
