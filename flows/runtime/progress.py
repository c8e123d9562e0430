"""Progress of a run on standard error: a live bar on a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from time import monotonic

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from cac_core.events import event
from schemas.codes import Status

#: Without a live bar, a line is written at the end of a shard and when this time has passed.
_LINE_EVERY_S = 30.0
#: Key of `RunProgress.statuses` for studies whose earlier score still holds.
UNCHANGED = "unchanged"


class RunProgress:
    """Counts finished studies and shows them; safe to call from several threads.

    Parameters
    ----------
    console : output; a terminal shows a live bar, anything else a line per shard and now and then.
    quiet : count without writing.
    line_every_s : time between two lines within a shard, seconds.
    """

    def __init__(
        self, console: Console, *, quiet: bool = False, line_every_s: float = _LINE_EVERY_S
    ) -> None:
        self._console = console
        self._quiet = quiet
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._line_every_s = line_every_s
        self._started = self._said = monotonic()
        self.total = 0
        self.seconds = 0.0
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.needs_review = 0
        self.review_reasons: Counter[str] = Counter()

    def fresh(self) -> RunProgress:
        """Another progress with the same output, and nothing counted."""
        return RunProgress(self._console, quiet=self._quiet)

    def say(self, text: str) -> None:
        """Write one line."""
        if not self._quiet:
            self._console.print(Text(text), highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def counting(self, unit: str) -> Iterator[Callable[[int, int], None] | None]:
        """Show the progress of a long step; yields a callback (done, total)."""
        if self._quiet or not self._console.is_terminal:
            yield None
            return
        with _bar(self._console, unit) as bar:
            task = bar.add_task("", total=None, note="")
            yield lambda done, total: bar.update(task, completed=done, total=total)

    @contextlib.contextmanager
    def scoring(self, total: int) -> Iterator[None]:
        """Show studies while they are scored."""
        self.total = total
        self._started = self._said = monotonic()
        with contextlib.ExitStack() as stack:
            stack.callback(self._stop)
            if not self._quiet and self._console.is_terminal:
                self._bar = stack.enter_context(_bar(self._console, "studies"))
                self._task = self._bar.add_task("", total=total, note="")
            yield

    def _stop(self) -> None:
        self.seconds = monotonic() - self._started
        self._bar = None

    def study_unchanged(self) -> None:
        """Count a study whose files changed and whose pixels did not."""
        with self._lock:
            self.statuses[UNCHANGED] += 1

    def study_done(self, score: dict[str, object]) -> None:
        """Count one finished study."""
        event(
            "study",
            study_key=score.get("study_key"),
            status=score["status"],
            reason=score.get("reason"),
            seconds=_seconds(score),
        )
        with self._lock:
            self.statuses[str(score["status"])] += 1
            if score.get("reason"):
                self.reasons[str(score["reason"])] += 1
            self.needs_review += bool(score.get("needs_review"))
            self.review_reasons.update(
                filter(None, str(score.get("review_reasons") or "").split(";"))
            )
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=self.done, note=self._note())
            elif monotonic() - self._said >= self._line_every_s:
                self._say_state()

    def shard_done(self, shard: int, shards: int) -> None:
        """Report a finished shard if there is no live bar."""
        if self._bar is None:
            self._say_state(f"shard {shard}/{shards}: ")

    def _say_state(self, where: str = "") -> None:
        self._said = monotonic()
        self.say(f"{where}{self.done}/{self.total} studies, {self._note()}")

    @property
    def done(self) -> int:
        """Number of finished studies."""
        return sum(self.statuses.values())

    @property
    def rate(self) -> float:
        """Finished studies per second since scoring began."""
        return self.done / max(monotonic() - self._started, 1e-6)

    def _note(self) -> str:
        left = (self.total - self.done) / self.rate if self.done else float("nan")
        parts = [f"{self.rate:.2f} studies/s", f"{format_seconds(left)} left"]
        for status in (Status.REJECTED, Status.FAILED):
            if self.statuses[status.value]:
                parts.append(f"{self.statuses[status.value]} {status.value}")
        if self.reasons:
            listed = ", ".join(f"{name} {n}" for name, n in self.reasons.most_common(4))
            parts[-1] += f" ({listed})"
        return ", ".join(parts)


def _seconds(score: dict[str, object]) -> float | None:
    """Time of a study in its worker; None if it was not read."""
    names = ("seconds_read", "seconds_model", "seconds_score", "seconds_preview")
    given = [float(str(score[name])) for name in names if score.get(name) is not None]
    return round(sum(given), 3) if given else None


_CURRENT: ContextVar[RunProgress | None] = ContextVar("run_progress", default=None)


@contextlib.contextmanager
def showing(progress: RunProgress) -> Iterator[RunProgress]:
    """Set the progress of the flow run that starts inside; flow parameters must be plain."""
    token = _CURRENT.set(progress)
    try:
        yield progress
    finally:
        _CURRENT.reset(token)


def current_progress() -> RunProgress:
    """The progress set by `showing`; in a deployment, lines on standard error."""
    return _CURRENT.get() or RunProgress(Console(stderr=True))


def format_seconds(seconds: float) -> str:
    """A readable duration: `45 s`, `12 min`, `3 h 20 min`; `?` if unknown."""
    if seconds != seconds or seconds < 0:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _bar(console: Console, unit: str) -> Progress:
    def fixed() -> Column:
        return Column(no_wrap=True)

    return Progress(
        SpinnerColumn(),
        MofNCompleteColumn(table_column=fixed()),
        TextColumn(unit, table_column=fixed()),
        BarColumn(bar_width=16),
        TimeElapsedColumn(table_column=fixed()),
        # Narrow terminals truncate the note, never the count.
        TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True)),
        console=console,
        expand=True,
        transient=True,
    )
