"""Fixtures for all tests: the shared data folder, and a secret for the linkage keys."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# The tests run side by side: threads of torch, here and in every command started, would only wait
# for each other.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell that starts the tests in the background lets them, and every command they start, ignore
# Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real series made by real scanners, beside the checkout; skips where absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder of real data (../shared/data) is not here")
    return folder


@pytest.fixture(autouse=True)
def linkage_key(monkeypatch: pytest.MonkeyPatch) -> str:
    """Set a linkage secret for the test, as a site would in its environment."""
    secret = "a secret used by the tests only"
    monkeypatch.setenv("CAC_LINKAGE_KEY", secret)
    return secret
