"""The processes of a run by their role."""

from __future__ import annotations

import contextlib

import psutil


def worker_server(run: psutil.Process) -> list[psutil.Process]:
    """The server that forks the workers of a run, if it is there."""
    return [child for child in run.children() if _says(child, "forkserver")]


def workers(run: psutil.Process) -> list[psutil.Process]:
    """The worker processes of a run that are there now."""
    found = []
    for server in worker_server(run):
        with contextlib.suppress(psutil.Error):
            found += server.children()
    return found


def prefect_api(run: psutil.Process) -> list[psutil.Process]:
    """The Prefect server of a run, if it has one of its own."""
    return [child for child in run.children() if _says(child, "prefect")]


def _says(process: psutil.Process, word: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(word in argument for argument in process.cmdline())
    return False
