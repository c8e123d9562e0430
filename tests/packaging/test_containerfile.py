"""The container file keeps to good practice, as far as this can be checked without building it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "Containerfile").read_text(encoding="utf-8")


def instructions(name: str) -> list[str]:
    """Arguments of every instruction of a kind."""
    joined = TEXT.replace("\\\n", " ")
    return [line[len(name) :].strip() for line in joined.splitlines() if line.startswith(name)]


def test_the_linter_finds_nothing() -> None:
    beside = Path(sys.executable).parent
    hadolint = shutil.which("hadolint", path=f"{beside}:{os.environ['PATH']}")
    assert hadolint, "it comes with the extra `dev`"
    done = subprocess.run(
        [hadolint, REPOSITORY / "Containerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_images_are_pinned_and_the_user_has_no_rights() -> None:
    for image in instructions("FROM "):
        tag = image.split()[0].rpartition(":")[2]
        assert tag.split("-")[0].count(".") == 2, image
    user = instructions("USER ")[-1]
    assert all(int(part) > 0 for part in user.split(":"))


def test_no_secret_and_nothing_of_a_working_copy() -> None:
    assert not [line for line in instructions("ENV ") + instructions("ARG ") if "KEY" in line]
    copied = {part.split()[0] for part in instructions("COPY ") if not part.startswith("--from")}
    assert not copied & {".", "./"}
    ignored = (REPOSITORY / ".containerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    assert copied <= {line[1:] for line in ignored if line.startswith("!")} | {"pyproject.toml"}
