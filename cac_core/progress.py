"""How long work reports its progress; the core does not know who shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol

#: Called with the number of items done and their total.
Count = Callable[[int, int], None]


class Progress(Protocol):
    """Where long work reports to: `flows.runtime.progress.RunProgress` on the command line."""

    def say(self, text: str) -> None:
        """Show one line of news."""

    def counting(self, unit: str) -> contextlib.AbstractContextManager[Count | None]:
        """Show a count of `unit` for as long as the context is open; None where nobody looks."""
