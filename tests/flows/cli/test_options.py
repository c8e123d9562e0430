"""What all commands share: help of every option, narrow terminals, errors as JSON."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from cac_core.training.settings import CALCIUM_SETTINGS, HEART_SETTINGS
from flows.cli.main import app
from flows.cli.options import show
from flows.cli.tables import doctor_table, index_table, planned_table, status_tables
from flows.summaries import Check, DoctorSummary, IndexSummary, PlannedWrites, StatusSummary

CAC = Path(sys.executable).with_name("cac")
LONG = "several_frames_of_reference"


def commands(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the command line, with its path."""
    children = getattr(node, "commands", None)
    if children is None:
        yield path, node
        return
    for name, child in children.items():
        yield from commands(child, (*path, name))


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_option_has_a_line_of_help_and_its_default(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "-h"], prog_name="cac", env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for option in ALL[path].params:
        assert getattr(option, "help", None), option.name
        if option.param_type_name == "option" and not option.required and not option.is_flag:
            assert option.default is not None or isinstance(option.show_default, str), option.name


def test_an_option_means_the_same_everywhere() -> None:
    """`--model` is an id or a folder; no short letter stands for two options."""
    letters: dict[str, set[str]] = {}
    for path, command in ALL.items():
        for option in command.params:
            if "--model" in option.opts:
                assert option.metavar == "ID|FOLDER", path
            long = next((name for name in option.opts if name.startswith("--")), "")
            for short in (name for name in option.opts if len(name) == 2 and name != "-h"):
                letters.setdefault(short, set()).add(long)
    assert all(len(names) == 1 for names in letters.values()), letters


def test_commands_that_write_have_a_dry_run() -> None:
    writing = {
        "init", "score", "retry", "index", "link", "analyse", "report", "export", "phantom",
        "registry",
        "train table", "train split", "train heart", "train calcium", "train export",
        "train confidence",
    }  # fmt: skip
    without = {
        name
        for name in writing
        if not any("--dry-run" in option.opts for option in ALL[tuple(name.split())].params)
    }
    assert not without


def test_the_version() -> None:
    from cac_core.version import __version__

    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.output) == (0, f"cac {__version__}\n")


@pytest.mark.parametrize("columns", [40, 60])
def test_a_narrow_terminal_cuts_nothing(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    counts = {"studies": 123456, "need_review": 1234}
    row = {"status": "rejected", "reason": LONG, "cac_category": "101-400", **counts}
    run = {
        "started_at": dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC), "job": "retry",
        "outcome": "over_budget", "scored": 123456, "rejected": 12, "failed": 1, "skipped": 99,
        "seconds": 3600.0,
    }  # fmt: skip
    index = IndexSummary(9, 9, {LONG: 3}, 1, 1, 1, {LONG: 2}, 1.0, 9.0, "/a/" + "w" * 70)
    parts = [
        *status_tables(StatusSummary("w", {"m": [row]}, [run], "same", {"m": 0})),
        index_table(index),
        planned_table(PlannedWrites(["/a/" + "b" * 70], {"reason": LONG})),
        doctor_table(DoctorSummary([Check("linkage secret", False, LONG)], False)),
    ]
    for part in parts:
        show(part)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= columns
    letters = "".join(ch for ch in shown if ch.isalnum() or ch == "_")
    assert shown.count("w") >= 70
    assert letters.count("b") >= 70


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CAC, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False,
        env={"PATH": "/usr/bin", "HOME": "/", **variables},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "error", "hint"),
    [
        (("status", "-w", "/nowhere", "--json"), 1, "no warehouse at /nowhere", "cac score"),
        (("score", "--json"), 2, "No archive is named", "folder of DICOM"),
        (("score", "--jsn", "--json"), 2, "No such option: --jsn", "cac score --help"),
        (("evaluate", "set", "--json"), 2, "Missing argument", "cac evaluate set --help"),
        (("nothing", "--json"), 2, "No such command", "cac --help"),
    ],
)
def test_an_error_is_one_object(
    arguments: tuple[str, ...], code: int, error: str, hint: str
) -> None:
    done = run(*arguments)
    assert done.returncode == code
    found = json.loads(done.stdout)
    assert set(found) == {"error", "hint", "exit_code"}
    assert found["exit_code"] == code
    assert error in found["error"]
    assert hint in found["hint"]
    assert error in done.stderr.replace("\n", " "), "people read the same"


def test_without_json_standard_output_stays_empty() -> None:
    done = run("status", "-w", "/nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_command_group_without_a_command_lists_them() -> None:
    for group in ("evaluate", "train", "key"):
        shown = CliRunner().invoke(app, [group], prog_name="cac")
        assert "Commands" in shown.output


def test_defaults_of_training_are_those_of_its_settings() -> None:
    """The help names them, as it must not load the trainer."""
    shown = {option.name: option.show_default for option in ALL["train", "heart"].params}
    heart, calcium = HEART_SETTINGS, CALCIUM_SETTINGS
    assert shown["steps"] == f"heart {heart.steps}, calcium {calcium.steps}"
    assert shown["batch"] == f"heart {heart.batch}, calcium {calcium.batch}"
    for name in ("learning_rate", "patience", "seed", "keep", "device", "precision"):
        assert getattr(heart, name) == getattr(calcium, name)
        assert shown[name] == str(getattr(heart, name)), name
