"""The state of the last night: when it was, whether it was good, and what its canaries say."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from cac_core.settings import Settings
from flows.request import open_warehouse, read_settings
from flows.runtime.notify import tell
from flows.summaries import NightCheck
from schemas.canary import CANARIES
from schemas.run import RUNS, SCORING_JOBS

_COLUMNS = (
    *("run_id", "job", "started_at", "finished_at", "outcome", "files", "studies", "scored"),
    *("rejected", "failed", "skipped", "seconds", "model_id"),
)
_NIGHT = SCORING_JOBS[0]
_Row = dict[str, Any]


@dataclass(frozen=True)
class NightState:
    """The last run that scored, the last good night, and the newest check of the canaries.

    A night is good if it was completed within the failure budget; `cac retry` is not a night.
    """

    last: _Row | None
    last_success: _Row | None
    canaries: int
    drifted: int

    def hours_since_success(self, now: dt.datetime) -> float | None:
        """Hours since the end of the last good night; None if there was none."""
        if self.last_success is None:
            return None
        ended: dt.datetime = self.last_success["finished_at"]
        return (now - ended).total_seconds() / 3600

    @property
    def done(self) -> int:
        """Studies that the last run scored, rejected or failed to score."""
        if self.last is None:
            return 0
        return int(self.last["scored"] + self.last["rejected"] + self.last["failed"])


def night_state(store: Warehouse) -> NightState:
    """Read the state from the tables `runs` and `canaries`.

    Raises
    ------
    CacError
        If a table cannot be read.
    """
    runs = [row for row in store.columns(RUNS, _COLUMNS).to_pylist() if row["job"] in SCORING_JOBS]
    runs.sort(key=lambda row: row["started_at"])
    good = [row for row in runs if row["outcome"] == "completed" and row["job"] == _NIGHT]
    columns = ("run_id", "checked_at", "is_reference", "drifted")
    checks = [
        row for row in store.columns(CANARIES, columns).to_pylist() if not row["is_reference"]
    ]
    newest = max(checks, key=lambda row: row["checked_at"])["run_id"] if checks else None
    mine = [row for row in checks if row["run_id"] == newest]
    return NightState(
        last=runs[-1] if runs else None,
        last_success=good[-1] if good else None,
        canaries=len(mine),
        drifted=sum(row["drifted"] for row in mine),
    )


def check_night(
    warehouse: str | None,
    config: str | None,
    hours: float,
    *,
    notify: bool,
    say: Callable[[str], object],
) -> NightCheck:
    """Whether the last night was good and not too long ago.

    Parameters
    ----------
    hours : longest age of the last good night.
    notify : tell those whom the settings name, if it was not good.
    say : receives a line for each notification that fails.

    Raises
    ------
    CacError
        If there is no warehouse, or a table cannot be read.
    """
    settings = read_settings(config)
    store = open_warehouse(warehouse, settings)
    if not store.exists():
        raise CacError(f"There is no warehouse at {store.url}.", "Name it with --warehouse.")
    state = night_state(store)
    age = state.hours_since_success(dt.datetime.now(dt.UTC))
    problems = _problems(state, settings, age, hours)
    result = NightCheck(
        ok=not problems,
        problems=problems,
        hours_since_success=None if age is None else round(age, 2),
        outcome=None if state.last is None else state.last["outcome"],
        done=state.done,
        failed=0 if state.last is None else state.last["failed"],
        failure_budget=settings.scoring.failure_budget,
        canaries=state.canaries,
        drifted=state.drifted,
        warehouse=store.url,
    )
    if problems and notify:
        facts: dict[str, object] = {
            "hours since the last good night": result.hours_since_success,
            "outcome of the last run": result.outcome,
            "studies done": result.done,
            "failed": result.failed,
            "canaries that drifted": result.drifted,
        }
        tell(settings.notify, "The last night was not good", problems, facts, say)
    return result


def _problems(state: NightState, settings: Settings, age: float | None, hours: float) -> list[str]:
    problems = []
    if age is None:
        problems.append("no night was completed yet")
    elif age > hours:
        problems.append(f"the last good night is {age:.1f} h ago, more than {hours:g} h")
    if state.last is not None and state.last["outcome"] == "interrupted":
        problems.append("the last run was interrupted")
    if state.last is not None and (
        state.last["outcome"] == "over_budget"
        or state.last["failed"] > settings.scoring.failure_budget * max(state.done, 1)
    ):
        problems.append("more studies failed in the last run than the failure budget allows")
    if state.drifted:
        problems.append(f"{state.drifted} of {state.canaries} canaries drifted")
    return problems
