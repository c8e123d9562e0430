"""Writes the tree of modules into docs/architecture.md, from the first line of each docstring.

`python docs/architecture/make.py`, from the root of the repository.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
#: Packages, from those that import to those that are imported.
PACKAGES = ("flows", "tasks", "cac_core", "schemas")
BEGIN, END = "<!-- tree: written by docs/architecture/make.py -->", "<!-- end of tree -->"
_COMMENT = {".toml": "#", ".sql": "--"}
_SENTENCE_END = re.compile(r"\.(?=\s|$)")
_WIDTH = 32


def tree() -> str:
    """The tree of all packages as a code block: a line per folder, module and data file."""
    lines = [line for package in PACKAGES for line in _folder(ROOT / package, 0)]
    return "\n".join(["```text", *lines, "```"])


def replaced(text: str) -> str:
    """The text of the page with its tree written again."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tree()}\n{END}{after}"


def _folder(folder: Path, depth: int) -> Iterator[str]:
    init = folder / "__init__.py"
    yield _line(f"{folder.name}/", _summary(init) if init.exists() else "", depth)
    entries = sorted(item for item in folder.iterdir() if not item.name.startswith((".", "__")))
    files = [item for item in entries if item.is_file() and item.name != "py.typed"]
    described = [item for item in files if item.suffix in (".py", *_COMMENT)]
    for item in described:
        yield _line(item.name, _summary(item), depth + 1)
    others = [item.name for item in files if item not in described]
    if others:
        yield _line(", ".join(others), "", depth + 1)
    for item in entries:
        if item.is_dir():
            yield from _folder(item, depth + 1)


def _line(name: str, summary: str, depth: int) -> str:
    return f"{'  ' * depth + name:<{_WIDTH}} {summary}".rstrip()


def _summary(path: Path) -> str:
    """First line of a docstring, or first sentence of the comment that a data file begins with."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    mark = _COMMENT[path.suffix]
    comment = []
    for line in text.splitlines():
        if not line.startswith(mark):
            break
        comment.append(line.removeprefix(mark).strip())
    first = _SENTENCE_END.split(" ".join(comment))[0]
    return f"{first}." if first else ""


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
