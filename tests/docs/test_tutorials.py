"""The tutorials: every command and program of the pages runs, in their order, in one folder."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("tutorial-scoring", "tutorial-linkage", "tutorial-report")
_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_tutorials_run(tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    variables = {
        "PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path), "COLUMNS": "100",
    }  # fmt: skip
    for page in PAGES:
        for kind, code in _BLOCK.findall((DOCS / f"{page}.md").read_text(encoding="utf-8")):
            command = ["bash", "-euo", "pipefail", "-c"] if kind == "sh" else [sys.executable, "-c"]
            done = subprocess.run(
                [*command, code], cwd=tmp_path, env=variables, capture_output=True, text=True,
                check=False, timeout=1800,
            )  # fmt: skip
            assert done.returncode == 0, f"{page}:\n{code}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "report" / "index.html").exists()
    assert (tmp_path / "linkage.key").stat().st_mode & 0o777 == 0o600


def test_each_page_has_commands_and_names_the_next() -> None:
    for page, following in itertools.pairwise(PAGES):
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        assert len(_BLOCK.findall(text)) >= 4
        assert f"({following}.md)" in text
