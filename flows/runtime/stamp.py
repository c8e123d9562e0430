"""Identity of a run: run id, start time and versions, as every table of runs records them."""

from __future__ import annotations

import datetime as dt
import json
import platform
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from time import monotonic

from cac_core.version import __version__


@dataclass(frozen=True)
class RunStamp:
    """Start of a run; make one when the run begins."""

    started_at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    _clock: float = field(default_factory=monotonic)

    @cached_property
    def run_id(self) -> str:
        """Start time and a random suffix; unique across machines."""
        return f"{self.started_at:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"

    @property
    def seconds(self) -> float:
        """Wall time since the run began."""
        return monotonic() - self._clock

    def columns(self, libraries: Sequence[str]) -> dict[str, object]:
        """Columns that all tables of runs share, for a run that ends at this moment.

        Parameters
        ----------
        libraries : distributions whose versions the row records, beside that of Python.
        """
        versions = {name: version(name) for name in libraries}
        return {
            "run_id": self.run_id,
            "started_at": self.started_at,
            "finished_at": dt.datetime.now(dt.UTC),
            "seconds": self.seconds,
            "core_version": __version__,
            "versions": json.dumps({"python": platform.python_version(), **versions}),
        }
