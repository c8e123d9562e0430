"""Studies of a PACS on their way to the workers: pulled a little ahead, scored as they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from cac_core.errors import StudyError
from cac_core.sources.collect import GIVE_UP_AFTER
from cac_core.sources.pace import Pace, StoppedError
from cac_core.sources.puller import Puller
from cac_core.sources.source import Fault, SourceError
from cac_core.study import StudyWork
from schemas.codes import StudyReason


@dataclass(eq=False)
class Arrivals:
    """The pulls of a run.

    Parameters
    ----------
    puller : pulls one study.
    pace : shared by all requests of the run; stopped when it is interrupted.
    connections : studies that are pulled at the same time.
    ahead : studies that are pulled or wait for a worker.
    is_open : whether the PACS may be asked at this time of the day.
    say : called with one line when no more studies are pulled in this run.
    """

    puller: Puller
    pace: Pace
    connections: int = 2
    ahead: int = 6
    is_open: Callable[[], bool] = lambda: True
    say: Callable[[str], None] = lambda line: None
    left: int = 0
    _here: dict[str, StudyWork] = field(default_factory=dict)
    _silent: int = 0
    _ended: str | None = None

    def works(
        self, works: Iterable[StudyWork], on_fault: Callable[[StudyWork, StudyError], None]
    ) -> Iterator[StudyWork]:
        """Each study when its files are here; one that cannot be had goes to `on_fault`.

        Studies that are not pulled in this run, because the night is over or the PACS is away, are
        left to the next one.
        """
        queue, asked = iter(works), dict[Future[StudyWork], StudyWork]()
        pool = ThreadPoolExecutor(self.connections, thread_name_prefix="cac-pull")
        whole = False
        try:
            while True:
                while len(asked) < self.ahead and (work := next(queue, None)) is not None:
                    if not self.puller.concerns(work):
                        yield work
                    elif self._may_pull():
                        asked[pool.submit(self.puller.pulled, work)] = work
                    else:
                        self.left += 1
                if not asked:
                    whole = True
                    return
                for future in wait(asked, return_when=FIRST_COMPLETED).done:
                    arrived = self._arrived(future, asked.pop(future), on_fault)
                    if arrived is not None:
                        yield arrived
        finally:
            if not whole:
                self.pace.stop.set()
            pool.shutdown(cancel_futures=True)

    def _arrived(
        self,
        future: Future[StudyWork],
        work: StudyWork,
        on_fault: Callable[[StudyWork, StudyError], None],
    ) -> StudyWork | None:
        try:
            arrived = future.result()
        except StoppedError:
            self.left += 1
            return None
        except OSError as error:
            detail = f"the cache folder: {error.strerror}"
            on_fault(work, StudyError(StudyReason.NOT_RETRIEVED, detail, rejected=False))
            return None
        except SourceError as error:
            self._silent = self._silent + 1 if error.fault is Fault.AWAY else 0
            if error.fault is Fault.REFUSED or self._silent >= GIVE_UP_AFTER:
                self._end(f"the PACS no longer delivers ({error.detail})")
            on_fault(work, StudyError(StudyReason.NOT_RETRIEVED, error.detail, rejected=False))
            return None
        self._silent = 0
        self._here[work.study_key] = work
        return arrived

    def done(self, study_key: str) -> None:
        """A study has its row: its files may go."""
        work = self._here.pop(study_key, None)
        if work is not None:
            self.puller.release(work)

    def _may_pull(self) -> bool:
        if self._ended is None and not self.is_open():
            self._end("the hours of the PACS are over")
        return self._ended is None

    def _end(self, why: str) -> None:
        if self._ended is None:
            self._ended = why
            self.say(f"warning: {why}; the other studies are left to the next run")
