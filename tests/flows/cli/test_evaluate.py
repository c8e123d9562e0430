"""`cac evaluate`: its commands, and the command line of earlier versions."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

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
