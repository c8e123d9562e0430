"""How fast, how often and when a PACS is asked: throttle, attempts, and the nightly window."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from cac_core.sources.source import Fault, SourceError

_Result = TypeVar("_Result")
_LONGEST_DELAY_S = 120.0


class StoppedError(Exception):
    """The run ends: no further request is made."""


@dataclass
class Pace:
    """Limits on the requests of all threads of a run to one PACS.

    Parameters
    ----------
    requests_per_s, bytes_per_s : rates; None for no limit.
    attempts : attempts of one request in all.
    delay_s : time before the second attempt; doubles for each further one.
    """

    requests_per_s: float | None = None
    bytes_per_s: float | None = None
    attempts: int = 4
    delay_s: float = 1.0
    stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _next: float = 0.0

    def request(self) -> None:
        """Wait until another request may be made.

        Raises
        ------
        StoppedError
            If the run ends meanwhile.
        """
        self._spend(0.0 if self.requests_per_s is None else 1.0 / self.requests_per_s)

    def received(self, count: int) -> None:
        """Wait as long as so many bytes take at the allowed rate."""
        self._spend(0.0 if self.bytes_per_s is None else count / self.bytes_per_s)

    def _spend(self, seconds: float) -> None:
        with self._lock:
            begin = max(self._next, monotonic())
            self._next = begin + seconds
        self.sleep(begin - monotonic())

    def sleep(self, seconds: float) -> None:
        """Wait, unless the run ends.

        Raises
        ------
        StoppedError
            If it does.
        """
        if self.stop.wait(max(0.0, seconds)):
            raise StoppedError

    def attempt(self, call: Callable[[], _Result], *, partial_too: bool = False) -> _Result:
        """Call until it works, with growing pauses; a refusal is not repeated.

        Parameters
        ----------
        partial_too : also repeat after a fault of what was delivered: the server may still be
            receiving the study.

        Raises
        ------
        SourceError
            That of the last attempt.
        """
        for number in range(self.attempts):
            try:
                return call()
            except SourceError as error:
                again = error.fault is Fault.AWAY or (error.fault is Fault.STUDY and partial_too)
                if not again or number + 1 >= self.attempts:
                    raise
                delay = min(_LONGEST_DELAY_S, self.delay_s * 2**number)
                # Spread, so that several connections do not come back at the same moment.
                self.sleep(max(delay * random.uniform(0.5, 1.0), error.wait_s))
        raise AssertionError("unreachable")


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of the day in which a PACS may be asked; over midnight where `begin` is after `end`."""

    begin: dt.time
    end: dt.time

    def is_open(self, now: dt.datetime) -> bool:
        """Whether this local time lies in the window."""
        at = now.time().replace(tzinfo=None)
        if self.begin <= self.end:
            return self.begin <= at < self.end
        return at >= self.begin or at < self.end
