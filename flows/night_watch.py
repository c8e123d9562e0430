"""What surrounds a rescoring run: its log, metrics, notifications, and the removal of old files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cac_core.errors import CacError
from cac_core.events import event, event_log
from flows.request import PreparedScoring
from flows.retention import apply_retention, keep_archive_page
from flows.runtime.metrics import write_metrics
from flows.runtime.notify import tell
from flows.runtime.progress import RunProgress
from flows.runtime.stamp import RunStamp
from flows.summaries import ScoringSummary

_MEGABYTE = 10**6


class NightWatch:
    """Ends a run: removes old files, writes metrics, and tells whoever is to be told.

    Nothing of it can fail the run: each fault is one line of warning.
    """

    def __init__(self, prepared: PreparedScoring, stamp: RunStamp, progress: RunProgress) -> None:
        self._prepared, self._stamp, self._progress = prepared, stamp, progress
        self._settings, self._store = prepared.settings, prepared.warehouse

    def begin(self) -> None:
        """Log the start of the run."""
        event("run_started", reason="retry" if self._prepared.retry_failed else "nightly-rescore")

    def finished(self, summary: ScoringSummary) -> ScoringSummary:
        """End a run that came to its end, and return its summary."""
        with self._warning("old files are not removed"):
            settings = self._settings.retention
            if settings.archive_pages:
                keep_archive_page(self._store, summary.run_id)
            removed = apply_retention(self._store, settings, summary.model)
            if removed:
                listed = ", ".join(f"{n} {name}" for name, n in removed.items())
                self._progress.say(f"removed by retention: {listed}")
        names = ("studies", "scored", "rejected", "failed", "skipped", "left", "needs_review")
        event(
            "run_ended",
            outcome=summary.outcome,
            seconds=summary.seconds,
            drifted=summary.drifted,
            **{name: getattr(summary, name) for name in names},
        )
        self._write_metrics(error=False)
        problems = _problems(summary)
        if problems:
            self._tell("A rescoring run needs attention", problems, _facts(summary))
        return summary

    def failed(self, error: BaseException) -> None:
        """End a run that ended by an error; an interruption is reported to no one."""
        kind = type(error).__name__
        interrupted = isinstance(error, KeyboardInterrupt)
        outcome = "interrupted" if interrupted else "error"
        seconds = round(self._stamp.seconds, 3)
        event("run_ended", "error", outcome=outcome, reason=kind, seconds=seconds)
        self._write_metrics(error=not interrupted)
        if not interrupted:
            done = self._progress.statuses
            facts: dict[str, object] = {"seconds": seconds, **done}
            self._tell("A rescoring run failed", [f"the run ended by an error ({kind})"], facts)

    def _write_metrics(self, *, error: bool) -> None:
        with self._warning("the metrics are not written"):
            write_metrics(self._store, self._settings, error=error)

    def _tell(self, subject: str, problems: list[str], facts: dict[str, object]) -> None:
        facts = {"run": self._stamp.run_id} | facts
        tell(self._settings.notify, subject, problems, facts, self._progress.say)

    @contextlib.contextmanager
    def _warning(self, what: str) -> Iterator[None]:
        """Turn a fault of the block into a line of warning."""
        try:
            yield
        except (CacError, OSError) as error:
            cause = error.what if isinstance(error, CacError) else error.strerror
            self._progress.say(f"warning: {what}: {cause}")
            event("warning", "warning", reason=what.replace(" ", "_"))


@contextlib.contextmanager
def watched(
    prepared: PreparedScoring, stamp: RunStamp, progress: RunProgress
) -> Iterator[NightWatch]:
    """Watch a run: log its events, and report how it ended.

    Raises
    ------
    CacError
        If the log cannot be opened.
    """
    log = prepared.settings.logging
    size = int(log.max_megabytes * _MEGABYTE)
    with event_log(log.file, size, log.keep, stamp.run_id):
        watch = NightWatch(prepared, stamp, progress)
        watch.begin()
        try:
            yield watch
        except BaseException as error:
            watch.failed(error)
            raise


def _problems(summary: ScoringSummary) -> list[str]:
    problems = []
    if summary.outcome == "over_budget":
        problems.append(f"{summary.failed} studies failed, more than the failure budget allows")
    if summary.drifted:
        problems.append(f"{summary.drifted} of {summary.canaries} canaries drifted")
    return problems


def _facts(summary: ScoringSummary) -> dict[str, object]:
    """Counts of a run, and its reasons."""
    names = ("outcome", "studies", "scored", "rejected", "failed", "left", "seconds")
    facts: dict[str, object] = {name: getattr(summary, name) for name in names}
    return facts | {f"reason {reason}": n for reason, n in sorted(summary.reasons.items())}
