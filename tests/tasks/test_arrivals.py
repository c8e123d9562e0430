"""Studies of a PACS on their way to the workers: none lost, none pulled in vain."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from cac_core.errors import StudyError
from cac_core.sources.pace import Pace
from cac_core.sources.source import Fault, SourceError
from cac_core.study import FileStamp, StudyWork
from tasks.arrivals import Arrivals

PLACE = "dicomweb+https://pacs.example/dicom-web/studies/1.2/series/1.3/instances/2.25.4"


class Puller:
    """Pulls nothing; counts."""

    def __init__(self, fault: Fault | None = None, good: tuple[int, ...] = ()) -> None:
        self.fault, self.good = fault, good
        self.asked: list[str] = []
        self.released: list[str] = []
        self.here = self.most = 0
        self.lock = threading.Lock()

    @staticmethod
    def concerns(work: StudyWork) -> bool:
        """Whether it lies in a PACS."""
        return work.files[0].path == PLACE

    def pulled(self, work: StudyWork) -> StudyWork:
        """The study, or the fault."""
        with self.lock:
            self.asked.append(work.study_key)
            number = len(self.asked)
            self.here += 1
            self.most = max(self.most, self.here)
        time.sleep(0.005)
        if self.fault is not None and number not in self.good:
            raise SourceError(self.fault, "HTTP 503")
        return work

    def release(self, work: StudyWork) -> None:
        """Count."""
        with self.lock:
            self.here -= 1
            self.released.append(work.study_key)


def works(number: int, path: str = PLACE) -> list[StudyWork]:
    return [
        StudyWork(f"{index:032x}", None, None, (FileStamp(path, 0, index),), "d")
        for index in range(number)
    ]


def arrivals(puller: Puller, **options: Any) -> tuple[Arrivals, list[str], list[StudyError]]:
    said: list[str] = []
    return Arrivals(puller, Pace(), say=said.append, **options), said, []  # type: ignore[arg-type]


def test_every_study_arrives_once_and_few_wait(  # with files of a folder among them
) -> None:
    puller = Puller()
    here, _, faults = arrivals(puller, connections=3, ahead=4)
    mixed = [*works(3, "/data/x.dcm"), *works(20)]
    seen = []
    for work in here.works(iter(mixed), lambda work, error: faults.append(error)):
        seen.append(work)
        here.done(work.study_key)
    assert sorted(w.study_key for w in seen) == sorted(w.study_key for w in mixed)
    assert sorted(puller.released) == sorted(w.study_key for w in works(20))
    assert (faults, here.left) == ([], 0)
    assert puller.most <= 4 + 1


def test_a_pacs_that_is_away_is_not_asked_for_every_study() -> None:
    puller = Puller(Fault.AWAY)
    here, said, faults = arrivals(puller, connections=1, ahead=1)
    assert not list(here.works(works(50), lambda work, error: faults.append(error)))
    assert len(puller.asked) == len(faults) == 5 and here.left == 45
    assert said == ["warning: the PACS no longer delivers (HTTP 503); the other studies are left "
                    "to the next run"]  # fmt: skip
    flaky = Puller(Fault.AWAY, good=(4, 8, 12))
    here, said, faults = arrivals(flaky, connections=1, ahead=1)
    assert len(list(here.works(works(14), lambda work, error: faults.append(error)))) == 3
    assert (len(faults), here.left, said) == (11, 0, [])


@pytest.mark.parametrize(("fault", "asked"), [(Fault.REFUSED, 1), (Fault.STUDY, 9)])
def test_a_refusal_ends_the_pulls_and_a_bad_study_does_not(fault: Fault, asked: int) -> None:
    puller = Puller(fault)
    here, _, faults = arrivals(puller, connections=1, ahead=1)
    assert not list(here.works(works(9), lambda work, error: faults.append(error)))
    assert len(puller.asked) == asked and here.left == 9 - asked
    assert {error.reason.value for error in faults} == {"not_retrieved"}


def test_an_interrupted_run_asks_for_nothing_more() -> None:
    puller = Puller()
    here, _, _ = arrivals(puller, connections=2, ahead=4)
    arriving = here.works(works(50), lambda work, error: None)
    next(arriving)
    arriving.close()  # type: ignore[attr-defined]
    count = len(puller.asked)
    time.sleep(0.05)
    assert here.pace.stop.is_set() and len(puller.asked) == count <= 8
