"""Writes the table of quality measures into docs/scoring.md, from `cac_core.scoring.quality`.

`python docs/quality/make.py`, from the root of the repository.
"""

from __future__ import annotations

from pathlib import Path

from cac_core.scoring.quality import quality_markdown

PAGE = Path(__file__).parents[1] / "scoring.md"
BEGIN = "<!-- quality measures: written by docs/quality/make.py -->\n"
END = "<!-- end of quality measures -->\n"


def updated(page: str) -> str:
    """Return the page with the current table between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + quality_markdown() + END + after


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
