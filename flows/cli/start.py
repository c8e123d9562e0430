"""Entry point of `cac`: stops without a traceback, also while the program is still being loaded."""

from __future__ import annotations

import contextlib
import os
import signal

#: Signals that stop a command: Ctrl-C, the end of a job or container, and a terminal that is closed
#: (not under nohup, which ignores it).
STOPPING = (
    signal.SIGINT,
    signal.SIGTERM,
    *([] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]),
)
#: What an interrupted command says.
INTERRUPTED = "Interrupted. Finished work is kept; run the same command to continue."


def main() -> None:
    """Load the command line, which takes seconds on a busy machine, and run it."""
    stop_at_once()
    from flows.cli.main import main as run

    run()


def stop_at_once() -> None:
    """Make signals end this process: nothing is running that has to be ended first."""
    for stop in STOPPING:
        signal.signal(stop, _leave)


def _leave(signum: int, frame: object) -> None:
    # The streams of Python may not be ready, and an exception can get lost inside an import.
    with contextlib.suppress(OSError):
        os.write(2, f"cac: {INTERRUPTED}\n".encode())
    os._exit(1)
