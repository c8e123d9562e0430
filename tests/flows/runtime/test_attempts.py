"""Attempts of a scheduled job at a locked warehouse, after faults, and after wrong usage."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError, LockedError, UsageError
from cac_core.settings import ScheduleSettings
from flows.runtime import attempts
from flows.runtime.attempts import attempted
from flows.runtime.progress import RunProgress, current_progress, showing

_HOLD = """
import sys
from cac_core.cohort.warehouse import Warehouse
with Warehouse(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "wh")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def release(process: subprocess.Popen[str]) -> None:
    process.communicate("\n")
    assert process.returncode == 0


def test_a_command_names_the_holder_at_once(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    def work() -> None:
        with Warehouse(tmp_path / "wh").lock():
            raise AssertionError("the lock is held")

    with pytest.raises(LockedError) as reported:
        attempted(work, None)
    release(holder)
    assert f"process {holder.pid} of user" in str(reported.value)
    assert "_HOLD" not in str(reported.value) and "-c" not in str(reported.value)


def test_a_scheduled_run_waits_and_says_so_once(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            release(holder)

    def work() -> str:
        with Warehouse(tmp_path / "wh").lock():
            return "done"

    monkeypatch.setattr(attempts, "sleep", nap)
    with showing(RunProgress(Console(file=said, width=300))):
        assert attempted(work, ScheduleSettings(wait_for_lock_s=3600, retries=0)) == "done"
    assert len(naps) == 3
    assert said.getvalue().count("Another run is writing") == 1
    assert f"process {holder.pid}" in said.getvalue() and "up to 60 min" in said.getvalue()


def test_patience_ends(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    def work() -> None:
        with Warehouse(tmp_path / "wh").lock():
            raise AssertionError("the lock is held")

    with pytest.raises(LockedError):
        attempted(work, ScheduleSettings(wait_for_lock_s=0.3))
    release(holder)


def test_faults_are_tried_again_with_a_progress_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    naps: list[float] = []
    monkeypatch.setattr(attempts, "sleep", naps.append)
    faults = [OSError(5, os.strerror(5), "/data/cac"), CacError("The workers are gone."), None]
    said = io.StringIO()

    def work() -> int:
        current_progress().study_done({"status": "scored"})
        fault = faults.pop(0)
        if fault is not None:
            raise fault
        return current_progress().done

    with showing(RunProgress(Console(file=said, width=300))):
        assert attempted(work, ScheduleSettings(retries=2, retry_delay_s=300)) == 1
    assert naps == [300, 300]
    assert said.getvalue().count("warning: this attempt failed") == 2


@pytest.mark.parametrize(
    ("fault", "schedule", "calls"),
    [
        (UsageError("No archive is named."), ScheduleSettings(), 1),
        (CacError("The workers are gone."), None, 1),
        (CacError("The workers are gone."), ScheduleSettings(retries=1, retry_delay_s=0), 2),
        (KeyboardInterrupt(), ScheduleSettings(retry_delay_s=0), 1),
    ],
)
def test_what_is_not_tried_again(
    fault: BaseException, schedule: ScheduleSettings | None, calls: int
) -> None:
    called: list[int] = []

    def work() -> None:
        called.append(1)
        raise fault

    with pytest.raises(type(fault)):
        attempted(work, schedule)
    assert len(called) == calls
