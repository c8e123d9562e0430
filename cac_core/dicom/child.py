"""Child processes that read hostile bytes: how they are started, and the limits that they set.

Imports little: children start by the dozen.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe

from cac_core.keys import SECRET_VARIABLE


def start_child(module: str) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start `python -m module FILE_DESCRIPTOR` without the secret; return it and our end of a pipe.

    The child ends by itself when this process ends: the pipe is closed then.
    """
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env=_environment(),
        )
    return process, ours


def end_child(process: subprocess.Popen[bytes], connection: Connection) -> None:
    """Kill a child; one that hangs in the kernel (a dead network drive) is not awaited."""
    connection.close()
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=2.0)


def limit_child(memory_bytes: int) -> None:
    """In a child: bound its address space, and write no core file: it would hold patient data."""
    for kind, limit in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (soft, hard))


def _environment() -> dict[str, str]:
    """Environment of a child: import path, one thread for numerics, without the secret."""
    here = ""
    with suppress(OSError):  # the current folder may be removed or unreadable
        here = os.getcwd()  # noqa: PTH109 - a string is wanted
    path = [item or here for item in sys.path if item or here]
    kept = {name: value for name, value in os.environ.items() if name != SECRET_VARIABLE}
    return kept | {"PYTHONPATH": os.pathsep.join(path), "OPENBLAS_NUM_THREADS": "1"}
