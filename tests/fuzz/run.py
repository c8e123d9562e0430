"""Fuzzing of what reads foreign bytes, by number: the same seed and number give the same input.

    python -m tests.fuzz.run [--count 1000000] [--first 0] [--seed 1] [--shared FOLDER]

A child process runs the inputs; the parent sees a crash of the child, or an input that takes more
than 5 s of processor time or 60 s of waiting, notes it and goes on with the next one. Prints a line
every 10,000 inputs and one per finding, and ends with 1 if there was any. `--first N --count 1`
runs one input again, in this process, with its traceback.
"""

from __future__ import annotations

import argparse
import mmap
import os
import resource
import signal
import struct
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from time import monotonic, sleep

import psutil

from tests.fuzz.targets import LeakError, Targets

HANG_S, HANG_CLOCK_S = 5.0, 60.0
_MEMORY = 4 * 2**30
_SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


class Fuzzer:
    """Runs inputs in a child and counts what happens.

    Parameters
    ----------
    seed, first, count : which inputs.
    targets : what is fuzzed.
    """

    def __init__(self, seed: int, first: int, count: int, targets: Targets) -> None:
        self.seed, self.next, self.end = seed, first, first + count
        self.targets = targets
        self.findings: Counter[str] = Counter()
        self.done = 0
        # The number that the child is at, and how many it has found wrong.
        self.at = mmap.mmap(-1, 16)

    def run(self) -> None:
        """Run every input."""
        while self.next < self.end:
            self._child()

    def _child(self) -> None:
        self.at[:16] = struct.pack("<qq", self.next, 0)
        child = os.fork()
        if child == 0:
            self._inputs()
        number, since, spent = self.next, monotonic(), 0.0
        while True:
            used = _processor_s(child)
            ended, status = os.waitpid(child, os.WNOHANG)
            now = struct.unpack("<qq", self.at[:16])
            if now[0] != number:
                number, since, spent = now[0], monotonic(), used
            late = used - spent > HANG_S or (monotonic() - since > HANG_CLOCK_S and _waits(child))
            hung = late and not ended
            if hung:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            if ended or hung:
                break
            sleep(0.05)
        self.findings["wrong"] += now[1]
        if hung or status:
            self.findings["hang" if hung else "crash"] += 1
            print(f"{'hang' if hung else 'crash'} at {number} (status {status})", flush=True)
            self.next = number + 1
        else:
            self.next = number

    def _inputs(self) -> None:
        """The child: runs inputs until the end, or until it is killed."""
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        wrong, counts = 0, Counter[str]()
        for number in range(self.next, self.end):
            self.at[:16] = struct.pack("<qq", number, wrong)
            try:
                counts[self.targets.run(self.seed, number)] += 1
            except BaseException as error:  # noqa: BLE001 - whatever comes is a finding
                wrong += 1
                place = traceback.extract_tb(error.__traceback__)[-1]
                kind = "leak" if isinstance(error, LeakError) else "error"
                print(
                    f"{kind} at {number}: {type(error).__name__} in "
                    f"{Path(place.filename).name}:{place.lineno}",
                    flush=True,
                )
            if (number + 1) % 10_000 == 0:
                print(f"{number + 1} inputs, {wrong} wrong, {dict(counts)}", flush=True)
        self.at[:16] = struct.pack("<qq", self.end, wrong)
        os._exit(0)


def _processor_s(process: int) -> float:
    times = psutil.Process(process).cpu_times()
    return times.user + times.system


def _waits(process: int) -> bool:
    """Whether a process waits for something, and not only for a processor."""
    return psutil.Process(process).status() != psutil.STATUS_RUNNING


def main() -> None:
    """Run the inputs of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shared", type=Path, default=_SHARED)
    given = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        targets = Targets(Path(folder), given.shared if given.shared.is_dir() else None)
        if given.count == 1:
            print(targets.run(given.seed, given.first))
            return
        fuzzer = Fuzzer(given.seed, given.first, given.count, targets)
        fuzzer.run()
    print(f"{given.count} inputs, seed {given.seed}: {dict(fuzzer.findings)}")
    sys.exit(1 if sum(fuzzer.findings.values()) else 0)


if __name__ == "__main__":
    main()
