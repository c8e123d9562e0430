"""Paths, modules and links in the documents exist, and their tree is that of the packages."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "MODEL_CARD.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
FOLDERS = "bench|cac_core|docs|flows|schemas|tasks|tests"
PATH = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})(?:/[\w*-][\w.*-]*)+(?<!\.)")
MODULE = re.compile(r"`(?:python -m )?((?:bench|cac_core|flows|schemas|tasks)(?:\.\w+)+)")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
#: Code blocks hold examples of paths that a reader makes.
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)

by_name = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def prose(document: Path) -> str:
    return FENCED.sub("", document.read_text(encoding="utf-8"))


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def is_defined(dotted: str) -> bool:
    """Whether a dotted name is a module, or a name that occurs in the module it begins with."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        place = REPOSITORY.joinpath(*parts[:count])
        source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if source.exists():
            return count == len(parts) or parts[count] in source.read_text(encoding="utf-8")
    return False


@by_name
def test_named_paths_exist(document: Path) -> None:
    paths = PATH.findall(prose(document))
    assert not [path for path in paths if not any(REPOSITORY.glob(path))]


@by_name
def test_named_modules_exist(document: Path) -> None:
    assert not [name for name in MODULE.findall(prose(document)) if not is_defined(name)]


@by_name
def test_links_lead_somewhere(document: Path) -> None:
    for target, section in LINK.findall(prose(document)):
        path = document.parent / target if target else document
        assert path.exists(), target
        if section:
            anchors = [anchor(heading) for heading in HEADING.findall(prose(path))]
            assert section in anchors, f"{target}#{section}"


def test_the_tree_is_that_of_the_packages() -> None:
    make = runpy.run_path(str(REPOSITORY / "docs" / "architecture" / "make.py"))
    page = REPOSITORY / "docs" / "architecture.md"
    text = page.read_text(encoding="utf-8")
    assert make["replaced"](text) == text, "run `python docs/architecture/make.py`"
