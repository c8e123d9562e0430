"""Events are JSON lines with known fields only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cac_core.errors import CacError
from cac_core.events import event, event_log, log_files


def test_lines_have_time_run_and_fields(tmp_path: Path) -> None:
    file = tmp_path / "log" / "runs.jsonl"
    event("before", studies=1)
    with event_log(file, 10**6, 3, "run-1"):
        event("study", study_key="k", status="scored", reason=None, seconds=0.5)
        event("warning", "warning", reason="metrics")
    event("after", studies=1)
    first, second = map(json.loads, file.read_text().splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info",
        "run_id": "run-1",
        "event": "study",
        "study_key": "k",
        "status": "scored",
        "seconds": 0.5,
    }
    assert (second["level"], second["reason"]) == ("warning", "metrics")


def test_no_other_field_gets_in() -> None:
    with pytest.raises(ValueError, match="patient_id"):
        event("study", patient_id="P1")


def test_a_full_file_is_rotated(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    with event_log(file, 400, 2, "run-1"):
        for number in range(30):
            event("study", studies=number)
    assert [path.name for path in log_files(file)] == [
        "runs.jsonl",
        "runs.jsonl.1",
        "runs.jsonl.2",
    ]
    assert all(path.stat().st_size <= 400 for path in log_files(file))


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(CacError, match="cannot be written"),
        event_log(tmp_path / "file" / "log", 1, 1, "run"),
    ):
        pass
