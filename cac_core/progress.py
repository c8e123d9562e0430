"""Interface by which long-running work reports its progress; the core does not show it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol

#: Called with the number of items done and the total.
Count = Callable[[int, int], None]


class Progress(Protocol):
    """Receiver of progress: `flows.runtime.progress.RunProgress` on the command line."""

    def say(self, text: str) -> None:
        """Show one line of text."""

    def counting(self, unit: str) -> contextlib.AbstractContextManager[Count | None]:
        """Show a count of `unit` while the context is open; None where it is not shown."""
