"""A piece of work that crashes, hangs or needs too much memory costs only itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

from cac_core.errors import CacError
from flows.runtime.contained import Contained

_prepared: list[int] = []


def prepare(number: int) -> None:
    _prepared.append(number)


def work(kind: str) -> tuple[int, int]:
    if kind == "crash":
        os._exit(11)
    if kind == "hang":
        time.sleep(600)
    if kind == "memory":
        np.ones(2**30, np.uint8)
    if kind == "fault":
        raise CacError("This study is none.", "Leave it.")
    return _prepared[0], os.getpid()


@pytest.fixture(scope="module")
def process() -> Iterator[Contained]:
    with Contained(prepare, (7,), 3.0, 2**28) as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "reason", "same"),
    [
        ("crash", "ended", False),
        ("hang", "more than 3 s", False),
        ("memory", "more than 256 MiB", True),
        ("fault", r"none\. Leave it", True),
    ],
)
def test_the_next_piece_of_work_is_done(
    kind: str, reason: str, same: bool, process: Contained
) -> None:
    before = process.run(work, "well")
    with pytest.raises(CacError, match=reason):
        process.run(work, kind)
    after = process.run(work, "well")
    assert before[0] == after[0] == 7
    assert (before[1] == after[1]) is same
    assert os.getpid() != after[1]


def test_a_process_ends_with_its_owner() -> None:
    with Contained(prepare, (7,), 60.0, 2**28) as made:
        _, pid = made.run(work, "well")
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
