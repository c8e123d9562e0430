"""Progress: counts, rate and remaining time; one line per shard without a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from flows.cli.options import complain, show
from flows.runtime.progress import RunProgress, current_progress, format_seconds, showing


def lines_of(quiet: bool = False) -> tuple[RunProgress, io.StringIO]:
    stream = io.StringIO()
    return RunProgress(Console(file=stream, width=200), quiet=quiet), stream


def test_one_line_per_shard() -> None:
    progress, stream = lines_of()
    with progress.scoring(4):
        progress.study_done({"status": "scored", "reason": None})
        progress.study_done({"status": "rejected", "reason": "no_heart"})
        progress.shard_done(1, 2)
        progress.study_done({"status": "failed", "reason": "timeout"})
        progress.study_done({"status": "scored"})
        progress.shard_done(2, 2)
    first, second = stream.getvalue().splitlines()
    assert first.startswith("shard 1/2: 2/4 studies, ")
    assert "studies/s" in first
    assert "left" in first
    assert first.endswith("1 rejected (no_heart 1)")
    assert "1 failed" in second
    assert progress.statuses == {"scored": 2, "rejected": 1, "failed": 1}
    assert progress.seconds > 0


def test_a_long_shard_says_how_far_it_is() -> None:
    stream = io.StringIO()
    progress = RunProgress(Console(file=stream, width=200), line_every_s=0.0)
    with progress.scoring(2):
        progress.study_done({"status": "scored"})
        assert stream.getvalue().startswith("1/2 studies, ")
        progress.study_done({"status": "scored"})
    assert [line[:3] for line in stream.getvalue().splitlines()] == ["1/2", "2/2"]


def test_quiet_counts_without_output() -> None:
    progress, stream = lines_of(quiet=True)
    with progress.scoring(1):
        progress.study_done({"status": "scored"})
        progress.shard_done(1, 1)
    assert stream.getvalue() == ""
    assert progress.done == 1


def test_the_flow_finds_the_progress_of_its_command() -> None:
    progress, _ = lines_of()
    with showing(progress):
        assert current_progress() is progress
    assert current_progress() is not progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (45.4, "45 s"),
        (600, "10 min"),
        (12_000, "3 h 20 min"),
        (float("nan"), "?"),
        (-1, "?"),
    ],
)
def test_readable_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize("path", ["wh [x]", "wh[/a]", "s [2020]", ":smile:", "a\\[b]", "[bold]"])
def test_a_path_is_shown_literally(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    show(path)
    table = Table()
    table.add_row(path)
    show(table)
    complain(path)
    stream = io.StringIO()
    RunProgress(Console(file=stream)).say(path)
    reported = capsys.readouterr()
    assert (
        reported.out.count(path) == 2
        and f"cac: {path}" in reported.err
        and path in stream.getvalue()
    )
