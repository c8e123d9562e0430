"""Which workers can take a study, and how many at a time.

Dask waits for ever for a worker that offers what a task asks for, so it is looked up beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping

from distributed import Client


def study_slots(client: Client, resources: Mapping[str, float] | None = None) -> dict[str, int]:
    """Number of studies that each worker can score at a time, by address of the worker.

    Parameters
    ----------
    resources : what a study takes of its worker while it is scored; workers that offer less are
        left out. Without it, a worker takes one study per thread.
    """
    if not resources:
        return dict(client.nthreads())
    slots = {}
    for address, worker in client.scheduler_info()["workers"].items():
        offered: Mapping[str, float] = worker["resources"]
        shares = (offered.get(name, 0.0) / amount for name, amount in resources.items())
        slots[address] = min(int(worker["nthreads"]), *map(int, shares))
    return {address: number for address, number in slots.items() if number > 0}
