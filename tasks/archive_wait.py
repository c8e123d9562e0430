"""Waiting for an archive that is away for a while, instead of failing every study meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

from cac_core.study import StudyResult
from schemas.codes import StudyReason

#: Time between two attempts to read from an archive that is away.
_PAUSE_S = 5.0


class ArchiveWait:
    """The time that a run may wait for its archive, over all its shards.

    Parameters
    ----------
    seconds : longest time in all.
    say : called with one line when the run begins to wait.
    """

    def __init__(self, seconds: float, say: Callable[[str], None] = lambda line: None) -> None:
        self._left, self._say = seconds, say
        self._since: float | None = None

    def holds(self, result: StudyResult) -> bool:
        """Whether this study has to wait; a study that was read ends the waiting of all."""
        if result.score.get("reason") == StudyReason.ARCHIVE_UNAVAILABLE.value:
            return self._left > 0
        if self._since is not None:
            self._left -= monotonic() - self._since
            self._since = None
            self._say("The archive is back.")
        return False

    def pause(self) -> None:
        """Wait before another attempt; the last one is when no time is left."""
        if self._since is None:
            self._since = monotonic()
            self._say(f"The archive is away: waiting for it, {self._left:.0f} s at most.")
        left = self._left - (monotonic() - self._since)
        if left <= 0:
            self._left, self._since = 0.0, None
            self._say("The archive is still away; its studies are left to the next run.")
        else:
            sleep(min(_PAUSE_S, left))
