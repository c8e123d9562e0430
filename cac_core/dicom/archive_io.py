"""Access to an archive on a drive that can go away: which errors say so, and calls that may hang.

A network drive that is gone answers with errors, shows an empty mount point, or does not answer at
all; none of these is a fault of the study that is read at that moment.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

from cac_core.errors import CacError, StudyError
from cac_core.storage import is_url, require_answer
from schemas.codes import StudyReason

_Result = TypeVar("_Result")

#: Errors of a drive, not of a file.
_AWAY = frozenset(
    (
        *(errno.ENOTCONN, errno.ESTALE, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENXIO, errno.ETIMEDOUT),
    )
)
#: A call without an answer for this long hangs; a file may first have to come from a tape.
_PATIENCE_S = 60.0
#: The same after a call that hung, until one is answered.
_SHORT_PATIENCE_S = 5.0

#: Items of an iterator that are read by one call.
_TOGETHER = 16

_last_hung = threading.Event()


def answered(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call a function that reads from the archive; give it up if it hangs.

    The call that hangs stays behind in its thread: nothing can interrupt it.

    Raises
    ------
    TimeoutError
        With the error number ETIMEDOUT, if there is no answer.
    """
    return cast("_Result", _call(lambda: function(*arguments), lambda: None))


def answered_each(items: Iterator[_Result]) -> Iterator[_Result]:
    """The items of an iterator that reads from the archive, each awaited as by `answered`.

    A few are read at a time: to change threads for each takes longer than to read it.

    Raises
    ------
    TimeoutError
        With the error number ETIMEDOUT, if an item does not come.
    """
    while True:
        found: deque[_Result] = deque()
        fault: BaseException | None = None
        try:
            _call(partial(found.extend, islice(items, _TOGETHER)), found.__len__)
        except BaseException as error:  # noqa: BLE001 - raised after the items before it
            fault = error
        ready = len(found)
        for _ in range(ready):
            yield found.popleft()
        if fault is not None:
            raise fault
        if not ready:
            return


def _call(function: Callable[[], object], progress: Callable[[], object]) -> object:
    """Make a call in another thread; give it up if neither it nor its progress moves."""
    try:
        caller = _idle.pop()
    except IndexError:
        caller = _Caller()
    caller.calls.put(function)
    while True:
        before = progress()
        try:
            patience = _SHORT_PATIENCE_S if _last_hung.is_set() else _PATIENCE_S
            result, fault = caller.answers.get(timeout=patience)
            break
        except Empty:
            if progress() == before:
                _last_hung.set()
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
    _idle.append(caller)  # not one that hangs, or whose call was interrupted
    _last_hung.clear()
    if fault is not None:
        raise fault
    return result


class _Caller:
    """A thread that makes calls, one after the other: to start one for each costs a millisecond."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self.answers: SimpleQueue[tuple[object, BaseException | None]] = SimpleQueue()
        threading.Thread(target=self._run, name="cac-archive", daemon=True).start()

    def _run(self) -> None:
        while True:
            call = self.calls.get()
            try:
                self.answers.put((call(), None))
            except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
                self.answers.put((None, error))
            del call  # else its arguments live until the next call


_idle: list[_Caller] = []
# A forked process has none of the threads.
os.register_at_fork(after_in_child=_idle.clear)


def unreadable(error: OSError) -> StudyError:
    """The fault of a study whose file cannot be read now."""
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    away = error.errno in _AWAY
    reason = StudyReason.ARCHIVE_UNAVAILABLE if away else StudyReason.UNREADABLE_FILE
    return StudyError(reason, name, rejected=False)


def is_there(root: str | Path) -> bool:
    """Whether a place of the archive is there; an empty folder is a bare mount point."""
    try:
        return answered(_look, root)
    except (OSError, CacError):
        return False


def _look(root: str | Path) -> bool:
    if is_url(str(root)):
        require_answer(str(root), "archive")
        return True
    root = Path(root)
    status = root.stat()
    os.statvfs(root)  # asks the server, where a listing may come from a cache
    if not stat.S_ISDIR(status.st_mode):
        return True
    with os.scandir(root) as entries:
        return next(entries, None) is not None


def require_there(roots: Sequence[str | Path]) -> None:
    """Refuse an archive of which a folder is away.

    Raises
    ------
    CacError
        If one of `roots` is missing, empty or does not answer.
    """
    for root in roots:
        if not is_there(root):
            raise CacError(
                f"The archive {root} is away: it is missing, empty or does not answer.",
                "Check the mount. Nothing was changed; an archive that is meant to be empty can "
                "be left out of the command or of `archive`.",
            )
