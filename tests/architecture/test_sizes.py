"""Functions fit on a screen, and modules stay short enough to read in one go."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("cac_core", "flows", "schemas", "tasks")
MOST_LINES, MOST_MODULE_LINES = 40, 450
#: Longer functions, each with its reason.
EXCEPTIONS = {
    "synthesise_scan": "one draw after the other in the order that fixes the scan of a seed",
    "draw_thorax": "the list of organs of the thorax, one call each",
    "network_command": "the options of `cac train heart` and `calcium`, one line each",
    "frozen_set": "the options of `cac evaluate set`, one line each",
    "init_command": "the options of `cac init`, one line each",
    "train": "its call of the training loop names every argument",
    "_derivatives": "splitting the loop over patients costs a tenth of the time of a bootstrap",
}


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (REPOSITORY / package).rglob("*.py")


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the signature to the end, without the docstring."""
    docstring = ast.get_docstring(function, clean=False) or ""
    return (function.end_lineno or 0) - function.lineno + 1 - len(docstring.splitlines())


def test_functions_fit_on_a_screen() -> None:
    long = {
        node.name
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and lines_of_code(node) > MOST_LINES
    }
    assert long == set(EXCEPTIONS)


def test_modules_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert not {str(path): n for path, n in lengths.items() if n > MOST_MODULE_LINES}
