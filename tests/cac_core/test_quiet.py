"""Tests of `cac_core.quiet`."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import cac_core
from cac_core.quiet import silence


def test_a_silenced_library_logs_nothing_at_any_level(caplog: pytest.LogCaptureFixture) -> None:
    silence("some_library")
    for name in ("some_library", "some_library.web"):
        logging.getLogger(name).critical("Doe^Jane")
        logging.getLogger(name).error("Doe^Jane")
    logging.getLogger("another_library").error("kept")
    assert caplog.messages == ["kept"]


def test_levels_of_libraries_are_set_in_one_place() -> None:
    root = Path(cac_core.__file__).parents[1]
    rooms = ("cac_core", "flows", "tasks")
    modules = [path for room in rooms for path in (root / room).rglob("*.py")]
    assert len(modules) > 300
    setting = {path.name for path in modules if ".setLevel(" in path.read_text(encoding="utf-8")}
    assert setting == {"quiet.py", "events.py"}
