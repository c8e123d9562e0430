"""Dask processes without an HTTP server: all they listen on is their own, authenticated channel.

Dask starts the server even where the dashboard is switched off. It asks nobody who they are.
"""

from __future__ import annotations

from typing import Any

from distributed import Scheduler, Worker


class ClosedScheduler(Scheduler):
    """A scheduler that answers nothing over HTTP."""

    def start_http_server(self, *arguments: Any, **options: Any) -> None:
        """Open no port."""


class ClosedWorker(Worker):
    """A worker that answers nothing over HTTP."""

    def start_http_server(self, *arguments: Any, **options: Any) -> None:
        """Open no port."""
