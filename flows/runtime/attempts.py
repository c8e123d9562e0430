"""Attempts of a scheduled job: it waits while another run writes to the warehouse, and tries again.

Each attempt checks its request again, because what it reads may have changed while it waited.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep, time
from typing import TypeVar

import psutil

from cac_core.errors import CacError, LockedError, UsageError
from cac_core.settings import ScheduleSettings
from flows.runtime.faults import describe_fault
from flows.runtime.progress import current_progress, format_seconds, showing
from schemas.invalid import InvalidTableError

_Result = TypeVar("_Result")
#: Seconds between two looks at the lock; shorter than the pause between two portions of a backfill.
POLL_S = 10.0


def attempted(work: Callable[[], _Result], schedule: ScheduleSettings | None) -> _Result:
    """Do the work of a job; with a schedule, wait for the warehouse and try again after a fault.

    Wrong usage is not tried again. Each attempt has a progress of its own.

    Raises
    ------
    CacError
        That of the last attempt; for a locked warehouse it names the process that holds it.
    """
    patience = schedule.wait_for_lock_s if schedule else 0.0
    left = schedule.retries if schedule else 0
    outer, began, said = current_progress(), monotonic(), False
    while True:
        try:
            with showing(outer.fresh()):
                return work()
        except LockedError as error:
            held = _with_holder(error)
            waited = monotonic() - began
            if waited >= patience:
                raise held from None
            if not said:
                outer.say(f"{held.what} Waiting for it, up to {format_seconds(patience)}.")
            said = True
            sleep(min(POLL_S, patience - waited))
        except (UsageError, InvalidTableError):
            raise
        except Exception as error:
            if schedule is None or not left:
                raise
            left -= 1
            what = error.what if isinstance(error, CacError) else describe_fault(error)
            outer.say(
                f"warning: this attempt failed: {what} The next one begins in "
                f"{format_seconds(schedule.retry_delay_s)}."
            )
            sleep(schedule.retry_delay_s)


def _with_holder(error: LockedError) -> LockedError:
    """The same error, naming the process that holds the lock where the system tells."""
    holder = _holder(error.file)
    if holder is None:
        return error
    what = f"{error.what.rstrip('.')}: {holder}."
    return LockedError(what, error.hint, error.file)


def _holder(lock: str) -> str | None:
    """Process that holds a lock (Linux: /proc/locks), without its arguments, which may be paths."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        inode = Path(lock).stat().st_ino
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            fields = line.split()
            if "->" in fields or fields[1] != "FLOCK" or int(fields[5].split(":")[2]) != inode:
                continue
            process = psutil.Process(int(fields[4]))
            age = format_seconds(max(0.0, time() - process.create_time()))
            return f"process {process.pid} of user {process.username()}, started {age} ago"
    return None
