"""The backfill: a whole archive scored in portions, between which other runs can write."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from time import monotonic, sleep

from prefect import State, flow

from cac_core.errors import UsageError
from flows.request import ScoringRequest, current_archive, read_settings
from flows.rescore import rescore
from flows.runtime.attempts import attempted
from flows.runtime.progress import current_progress
from flows.runtime.states import concluded
from flows.summaries import RunRecord, ScoringSummary


@dataclass(frozen=True)
class BackfillSummary:
    """One backfill (`cac backfill`); each of its portions has a row in `runs`."""

    outcome: str
    portions: int
    studies: int
    scored: int
    rejected: int
    failed: int
    left: int
    reasons: dict[str, int]
    seconds: float
    warehouse: str
    model: str

    def as_markdown(self) -> str:
        """The artifact on the Prefect page of the run."""
        record = self.record()
        lines = [f"- {line}" for line in (*record.info, *record.warnings)]
        return "\n".join([f"# Backfill of `{self.model}`", "", *lines])

    def record(self) -> RunRecord:
        """The log of the flow run, and its state."""
        info = [
            f"{self.outcome} after {self.portions} portions: {self.scored} scored, "
            f"{self.rejected} rejected, {self.failed} failed, {self.left} left of {self.studies}"
        ]
        reasons = [f"studies by reason: {self.reasons}"] if self.reasons else []
        if self.outcome != "over_budget":
            return RunRecord(info, reasons)
        message = (
            "The backfill stopped after a portion in which more studies failed than the failure "
            "budget allows. `cac status` lists the reasons."
        )
        return RunRecord(info, [*reasons, message], "OverBudget", message)


@flow(name="backfill", persist_result=False, validate_parameters=False)
def backfill(
    warehouse: str | None = None,
    config: str | None = None,
    model: str | None = None,
    limit: int | None = None,
    portion: int | None = None,
    workers: int | None = None,
) -> BackfillSummary | State[BackfillSummary]:
    """Score a model or protocol over the whole archive, in portions beside the nightly run.

    The warehouse is free between two portions, and a portion waits while another run writes to it.
    The ledger knows what is done: a backfill that was stopped goes on where it was.

    Parameters
    ----------
    warehouse, config, model, limit, portion, workers : as the options of `cac backfill`.

    Returns
    -------
    The summary that `cac backfill --json` prints; if a portion was over the failure budget, a
    state that holds it.
    """
    request = ScoringRequest(
        current_archive(), warehouse, config, model, limit, workers=workers, job="backfill"
    )
    return concluded("backfill", lambda: score_in_portions(request, portion))


def score_in_portions(request: ScoringRequest, portion: int | None) -> BackfillSummary:
    """Score what the ledger lacks, up to the limit of the request; called inside a flow.

    Raises
    ------
    CacError
        If a portion fails, also after the further attempts of the settings.
    """
    settings, began, done = read_settings(request.config), monotonic(), 0
    size = portion or settings.backfill.studies_per_portion
    if size < 1 or (request.limit is not None and request.limit < 1):
        raise UsageError("A portion and --limit have at least 1 study.", "Give larger numbers.")
    workers = request.workers or settings.backfill.workers
    ended: list[ScoringSummary] = []
    while True:
        number = size if request.limit is None else min(size, request.limit - done)
        one = request.portion(number, workers)
        last = attempted(partial(rescore, one), settings.schedule)
        ended.append(last)
        scored = last.scored + last.rejected + last.failed
        done += scored
        current_progress().say(f"portion {len(ended)}: {done} studies done, {last.left} left")
        reached = request.limit is not None and done >= request.limit
        if last.outcome != "completed" or not last.left or not scored or reached:
            return _summary(ended, monotonic() - began)
        sleep(settings.backfill.pause_s)


def _summary(ended: list[ScoringSummary], seconds: float) -> BackfillSummary:
    last, reasons = ended[-1], Counter[str]()
    for one in ended:
        reasons.update(one.reasons)
    return BackfillSummary(
        outcome=last.outcome,
        portions=len(ended),
        studies=last.studies,
        scored=sum(one.scored for one in ended),
        rejected=sum(one.rejected for one in ended),
        failed=sum(one.failed for one in ended),
        left=last.left,
        reasons=dict(reasons),
        seconds=round(seconds, 3),
        warehouse=last.warehouse,
        model=last.model,
    )
