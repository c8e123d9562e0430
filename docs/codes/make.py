"""Writes docs/codes.md: every code of the tables, what it means and what to do.

`python docs/codes/make.py`, from the root of the repository.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "codes.md"
#: Enums in the order of the data flow, each with its column and a sentence about it.
SECTIONS = {
    "Status": ("Status of a study", "Column `status` of `scores`."),
    "QualityFlag": (
        "Quality flags",
        "Column `quality_flags` of `scores`, joined by `;`. The study is scored.",
    ),
    "ReviewReason": (
        "Reasons for a review",
        "Column `review_reasons` of `scores`. A person should look at the study page "
        "(`cac status --review --page FOLDER`).",
    ),
    "StudyReason": (
        "Reasons of studies without a score",
        "Column `reason` of `scores`; `detail` has numbers.",
    ),
    "SeriesReason": (
        "Reasons of series that were not chosen",
        "Column `reason` of `series`. Limits and patterns: `cac_core/dicom/ctac_rules.toml`, which "
        "a site overrides with `rules` in its settings.",
    ),
    "FileReason": ("Reasons of files", "Column `reason` of `instances`."),
    "FlowStep": ("Steps of the cohort flow", "Table `flow`, and the flow diagram of the report."),
    "RowReason": (
        "Reasons of rows in quarantine",
        "Column `reason` of `quarantine`, with file and line.",
    ),
}
HEAD = """\
# Flags and reasons

Every code in the tables, what it means and what to do about it. `cac status` counts those of
studies; `cac schema` prints them with the tables. Each has a heading of its own, to link to.

<!-- written by docs/codes/make.py from schemas/codes.py and cac_core/advice.toml -->
"""


def page() -> str:
    """The page in Markdown: a heading per enum, and one per code, so that links reach each."""
    sys.path.insert(0, str(ROOT))
    from schemas import codes

    advice = tomllib.loads((ROOT / "cac_core" / "advice.toml").read_text(encoding="utf-8"))
    parts = [HEAD]
    for name, (title, where) in SECTIONS.items():
        enum, texts = getattr(codes, name), advice[name]
        if set(texts) != {member.value for member in enum}:
            raise SystemExit(f"cac_core/advice.toml does not fit {name}")
        parts += [f"## {title}", "", where, ""]
        for member in enum:
            parts += [f"### `{member.value}`", "", _sentence(member.description), ""]
            parts += [f"**What to do:** {texts[member.value]}", ""]
    return "\n".join(parts).rstrip() + "\n"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
