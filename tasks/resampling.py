"""Bootstrap resamples spread over a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from distributed import Client

from cac_core.stats.bootstrap import Mapper

#: Resamples per Dask task: at least a tenth of a second of work.
_CHUNK = 20


def over_dask(client: Client) -> Mapper:
    """A mapper that spreads resamples over the workers of a cluster and keeps their order."""

    def spread(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        # The function holds the table of patients: send it to each worker only once.
        shared = client.scatter(function, broadcast=True, hash=False)
        futures = [client.submit(_each, shared, chunk, pure=False) for chunk in _chunks(items)]
        for future in futures:
            yield from future.result()
            future.release()

    return spread


def _each(function: Callable[[Any], Any], items: tuple[Any, ...]) -> list[Any]:
    return [function(item) for item in items]


def _chunks(items: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    left = iter(items)
    while chunk := tuple(islice(left, _CHUNK)):
        yield chunk
