"""The server that forks the worker processes of a local cluster, with their libraries imported.

The imports of a worker take seconds of processor time. The server takes them once, beside the start
of the run, and a worker that died is replaced in a moment. Imports neither Dask nor torch.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

from cac_core.cluster_settings import ClusterSettings
from cac_core.keys import SECRET_VARIABLE
from cac_core.processes import without_interrupts
from cac_core.scratch import scratch_folder

#: Variables that libraries read when they are loaded: one thread per process, and no freed volume
#: returned to the kernel, as Dask's trim threshold (64 KiB) would: it costs the next study page
#: faults. Nor the thread of pyarrow's allocator: a process with threads cannot be forked safely.
WORKER_VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
_PRELOADED = ["tasks.preloaded"]
#: Places of the server's socket after that for temporary files, whose path can be too long for one.
_SHORT_PLACES = ("/tmp", "/var/tmp", "/dev/shm")
_PREFIX, _LONGEST_PLACE = "cac-server-", 40


def start_method() -> str:
    """How worker processes are started: `forkserver`, with the server started if it is not yet.

    `spawn` if the server cannot be started here: then each worker imports its libraries itself.
    """
    # Again each time: Dask sets a list of its own.
    forkserver.set_forkserver_preload(_PRELOADED)
    try:
        _place_socket()
        with without_interrupts(), _environment_of_workers():
            forkserver.ensure_running()
    except OSError:
        return "spawn"
    return "forkserver"


def start_early(cluster: ClusterSettings) -> None:
    """Start the server while the run does other things, if it will need one."""
    if cluster.kind == "local":
        start_method()


def _place_socket() -> None:
    """Give the server's socket a private folder that is removed, by the next run if need be.

    Raises
    ------
    OSError
        If there is no place with a path that is short enough.
    """
    # multiprocessing would make a folder that stays when this process is killed.
    config: dict[str, object] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    if config.get("tempdir"):
        return
    for place in (tempfile.gettempdir(), *_SHORT_PLACES):
        if len(os.fsencode(place)) > _LONGEST_PLACE:
            continue
        scratch = contextlib.ExitStack()
        with contextlib.suppress(OSError):
            config["tempdir"] = str(scratch.enter_context(scratch_folder(_PREFIX, Path(place))))
            atexit.register(_end, scratch, os.getpid())
            return
    raise FileNotFoundError


def _end(scratch: contextlib.ExitStack, owner: int) -> None:
    """End the server, which would first complete its imports, and remove its folder."""
    if os.getpid() != owner:
        return
    server: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if server is not None:
        with contextlib.suppress(OSError):
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)
    scratch.close()


@contextlib.contextmanager
def _environment_of_workers() -> Iterator[None]:
    """The environment that the server and its workers inherit: without the linkage secret."""
    # Those of the user win, as with Dask. The server would import from the current folder first.
    chosen = {name: os.environ.get(name, value) for name, value in WORKER_VARIABLES.items()}
    inside = chosen | {"PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in (*inside, SECRET_VARIABLE)}
    os.environ.pop(SECRET_VARIABLE, None)
    os.environ.update(inside)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
