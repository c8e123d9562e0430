"""Only the main process of a run handles Ctrl-C."""

from __future__ import annotations

import signal
import time
from multiprocessing import resource_tracker

import pytest

from cac_core.processes import WorkerPool, without_interrupts


def test_an_interrupt_waits_until_it_is_unblocked() -> None:
    with pytest.raises(KeyboardInterrupt):
        with without_interrupts():
            signal.raise_signal(signal.SIGINT)
            heard = False
        heard = True
    assert not heard


def test_processes_of_a_pool_ignore_it() -> None:
    resource_tracker._resource_tracker._stop()  # as in a process that has started none yet
    with WorkerPool(1) as pool:
        blocked = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result()
        assert signal.SIGINT in blocked
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_an_interruption_ends_the_tasks() -> None:
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), WorkerPool(1) as pool:
        assert pool.submit(abs, -1).result() == 1
        futures = [pool.submit(time.sleep, 600) for _ in range(5)]
        raise KeyboardInterrupt
    assert time.monotonic() - began < 300 and all(future.done() for future in futures)
