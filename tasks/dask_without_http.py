"""Dask processes without an HTTP server, so that they listen only on their authenticated channel.

Dask starts the server even if the dashboard is off, and the server authenticates nobody.
"""

from __future__ import annotations

from typing import Any

from distributed import Scheduler, Worker


class ClosedScheduler(Scheduler):
    """A scheduler without HTTP."""

    def start_http_server(self, *arguments: Any, **options: Any) -> None:
        """Open no port."""


class ClosedWorker(Worker):
    """A worker without HTTP."""

    def start_http_server(self, *arguments: Any, **options: Any) -> None:
        """Open no port."""
