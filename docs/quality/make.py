"""Writes the tables of quality measures and of reasons for review into docs/scoring.md.

`python docs/quality/make.py`, from the root of the repository.
"""

from __future__ import annotations

from pathlib import Path

from cac_core.scoring.quality import quality_markdown
from cac_core.scoring.review import review_markdown

PAGE = Path(__file__).parents[1] / "scoring.md"
#: Name of each table in its markers, and what writes it.
TABLES = {"quality measures": quality_markdown, "reasons for review": review_markdown}


def updated(page: str) -> str:
    """Return the page with the current tables between their markers."""
    for name, table in TABLES.items():
        begin = f"<!-- {name}: written by docs/quality/make.py -->\n"
        end = f"<!-- end of {name} -->\n"
        before, rest = page.split(begin)
        _, after = rest.split(end)
        page = before + begin + table() + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
