"""`cac evaluate`: its commands, and the command line of earlier versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cac_core.errors import UsageError
from flows.cli.evaluate import app


@pytest.mark.parametrize(
    ("former", "command"),
    [
        (["--warehouse", "wh", "--truth", "t.parquet"], "archive"),
        (["-w", "wh", "--against", "reader:A"], "archive"),
        (["-wwh", "--truth=t.parquet"], "archive"),
        (["--set", "external", "--by", "noise_hu"], "set"),
        (["--by", "noise_hu", "--set=external"], "set"),
        (["--studies", "4"], "synthetic"),
    ],
)
def test_former_options_lead_to_their_command(former: list[str], command: str) -> None:
    done = CliRunner().invoke(app, [*former, "--help"], prog_name="cac evaluate")
    assert done.exit_code == 0
    assert f"Usage: cac evaluate {command} " in done.output
    assert f"use: cac evaluate {command} ..." in done.output


def test_without_a_command_the_commands_are_listed() -> None:
    done = CliRunner().invoke(app, [], prog_name="cac evaluate")
    assert "deprecated" not in done.output
    assert all(name in done.output for name in ("archive", "set", "synthetic"))


def test_without_a_reference_it_says_how_to_give_one() -> None:
    done = CliRunner().invoke(app, ["archive", "-w", "wh"], prog_name="cac evaluate")
    assert isinstance(done.exception, UsageError)
    assert "--against reader:NAME --readings FILE" in str(done.exception)
    assert "--truth FILE" in str(done.exception)


@pytest.mark.parametrize(
    ("name", "takes"), [("semi-synthetic", True), ("mesh-hearts", True), ("external", False)]
)
def test_sets_of_real_anatomy_take_several_models(
    name: str, takes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def evaluate_set(*args: object, **options: object) -> None:
        asked.append(options["models"])
        raise UsageError("stop", "here")

    monkeypatch.setattr("cac_core.evaluation.evaluate.evaluate_set", evaluate_set)
    options = ["set", name, "--model", "a", "--model", "b"]
    CliRunner().invoke(app, options, prog_name="cac evaluate")
    assert asked == ([[Path("a"), Path("b")]] if takes else [])
