"""The faults of `bench/faults.py`: each does one thing to a run at a random moment."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

import psutil

from bench import stub_cascade

if TYPE_CHECKING:
    from bench.fault_run import Run

_MIB = 2**20
#: Seconds that loading the weights takes where a worker is killed meanwhile.
_LOAD_S = 2.0
_AWAY_S = 4.0
_JUMPS_S = (-86400, -3600, -60, 60, 3600, 86400)


class SkippedError(Exception):
    """A fault that cannot be done here, with the reason."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Parameters
    ----------
    do : does it to a run; called at the random moment.
    undo : called when the run has ended.
    since_workers : the random moment is counted from the first worker, not from the start.
    own_server : the run has a Prefect server of its own.
    setting : variables of the run, given its folder.
    mounts : folder of the run that lies on a small disk of its own.
    poison : what a study does, as a code of the stub.
    """

    name: str
    what: str
    do: Callable[[Run, random.Random], None] = lambda run, luck: None
    undo: Callable[[Run], None] = lambda run: None
    since_workers: bool = True
    own_server: bool = False
    setting: Callable[[Path], dict[str, str]] = lambda place: {}
    mounts: str = ""
    poison: int = 0
    window_s: float | None = None

    def prepare(
        self, place: Path, stack: contextlib.ExitStack, luck: random.Random
    ) -> dict[int, int]:
        """Make the folder of a run ready; returns the poisoned studies by number."""
        if self.mounts:
            stack.enter_context(_small_disk(place / self.mounts))
        return {luck.randrange(20, 90): self.poison} if self.poison else {}

    def variables(self, place: Path, environment: dict[str, str]) -> dict[str, str]:
        """Variables of the run beside the usual ones."""
        own = {"PREFECT_HOME": str(place / "prefect"), "PREFECT_API_URL": ""}
        return (own if self.own_server else {}) | self.setting(place)

    @contextlib.contextmanager
    def done_to(self, run: Run, luck: random.Random, usual_s: float) -> Iterator[None]:
        """Do the fault at a random moment of a run whose usual time is known."""
        moment = luck.uniform(0.0, self.window_s or usual_s)
        if self.since_workers:
            run.until(run.workers)
            moment = luck.uniform(0.0, self.window_s or usual_s / 2)
        try:
            run.process.wait(moment)
        except subprocess.TimeoutExpired:
            self.do(run, luck)
        try:
            yield
        finally:
            self.undo(run)


def _send(*signals: signal.Signals, all_of_them: bool = False) -> Callable[..., None]:
    """A function that sends a signal to one worker, or to all."""

    def do(run: Run, luck: random.Random) -> None:
        run.until(run.workers)
        workers = run.workers()
        for process in workers if all_of_them else workers and [luck.choice(workers)]:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signals[0])

    return do


def _kill_run(run: Run, luck: random.Random) -> None:
    run.process.kill()


def _kill_worker_server(run: Run, luck: random.Random) -> None:
    for process in run.worker_server():
        with contextlib.suppress(psutil.Error):
            process.kill()


def _kill_server(run: Run, luck: random.Random) -> None:
    for process in run.server():
        with contextlib.suppress(psutil.Error):
            process.kill()


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    mounted = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        raise SkippedError("no tmpfs can be mounted here (needs root)")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def _fill(name: str) -> Callable[..., None]:
    """A function that fills the small disk, but for a few KiB."""

    def do(run: Run, luck: random.Random) -> None:
        space = os.statvfs(run.place / name)
        left = luck.choice((0, 0, 4096, 40960))
        with contextlib.suppress(OSError), (run.place / name / "filler").open("wb") as file:
            for _ in range(max(0, space.f_bavail * space.f_frsize - left) // 4096):
                file.write(bytes(4096))

    return do


def _empty(name: str) -> Callable[[Run], None]:
    return lambda run: (run.place / name / "filler").unlink(missing_ok=True)


def _take_archive_away(run: Run, luck: random.Random) -> None:
    aside = run.archive.with_name("away")
    run.archive.rename(aside)
    try:
        sleep(luck.uniform(0.5, _AWAY_S))
    finally:
        aside.rename(run.archive)


def _shiftable_clock(place: Path) -> dict[str, str]:
    """Variables of a run whose clock the file `clock` of its folder shifts, by seconds."""
    library, clock = place / "clock.so", place / "clock"
    if not clock.exists():
        source = Path(__file__).with_name("clock_shift.c")
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        try:
            subprocess.run(command, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            raise SkippedError("no C compiler here") from None
        clock.write_bytes(struct.pack("q", 0))
    return {"LD_PRELOAD": str(library), "CAC_BENCH_CLOCK": str(clock)}


def _jump(run: Run, luck: random.Random) -> None:
    # In place: the processes of the run have mapped the file.
    with (run.place / "clock").open("r+b") as file:
        file.write(struct.pack("q", luck.choice(_JUMPS_S)))


FAULTS = (
    Fault("kill-worker", "kill -9 of a worker", _send(signal.SIGKILL)),
    Fault("kill-workers", "kill -9 of all workers", _send(signal.SIGKILL, all_of_them=True)),
    Fault(
        "kill-loading",
        "kill -9 of a worker while it loads the weights",
        _send(signal.SIGKILL),
        setting=lambda place: {"CAC_BENCH_LOAD_S": str(_LOAD_S)},
        window_s=_LOAD_S * 2,
    ),
    Fault("kill-forker", "kill -9 of the process that forks the workers", _kill_worker_server),
    Fault("kill-run", "kill -9 of the run", _kill_run, since_workers=False),
    Fault(
        "kill-server",
        "kill -9 of the Prefect server of the run",
        _kill_server,
        own_server=True,
    ),
    Fault("term-worker", "SIGTERM of a worker", _send(signal.SIGTERM)),
    Fault("int-worker", "SIGINT of a worker", _send(signal.SIGINT)),
    Fault("stop-worker", "SIGSTOP of a worker, for ever", _send(signal.SIGSTOP)),
    Fault(
        "full-warehouse",
        "no space in the warehouse",
        _fill("warehouse"),
        _empty("warehouse"),
        mounts="warehouse",
        since_workers=False,
    ),
    Fault(
        "full-tmp",
        "no space in the temporary folder",
        _fill("tmp"),
        _empty("tmp"),
        mounts="tmp",
        setting=lambda place: {"TMPDIR": str(place / "tmp")},
        since_workers=False,
    ),
    Fault(
        "full-prefect",
        "no space in Prefect's folder",
        _fill("prefect"),
        _empty("prefect"),
        mounts="prefect",
        own_server=True,
    ),
    Fault("archive-away", "the archive is away for some seconds", _take_archive_away),
    Fault(
        "clock-jump",
        "the clock jumps by minutes to a day",
        _jump,
        own_server=True,
        setting=_shiftable_clock,
        since_workers=False,
    ),
    Fault("segfault", "1 % of the studies crash", poison=stub_cascade.SEGFAULT),
    Fault("endless", "1 % of the studies never end", poison=stub_cascade.ENDLESS),
    Fault("greedy", "1 % of the studies take all memory", poison=stub_cascade.GREEDY),
    Fault("bomb", "1 % of the studies inflate to a gigabyte", poison=stub_cascade.BOMB),
)
