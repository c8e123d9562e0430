"""What a worker process needs, imported once by the server that forks the workers of one machine.

A fault of an import is left to the worker, which reports it when it loads the weights.
"""

from __future__ import annotations

import contextlib

with contextlib.suppress(Exception):
    import tasks.dask_without_http
    import tasks.worker  # noqa: F401 - only to have it imported
with contextlib.suppress(Exception):
    import cac_core.model.cascade  # noqa: F401
