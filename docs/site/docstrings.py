"""Extension of Griffe: `name : text` of our docstrings describes; types are in signatures."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(
    r"^((?:Parameters|Attributes)\n-+\n)(.*?)(?=^\S[^\n]*\n-+\n|\Z)", re.MULTILINE | re.DOTALL
)
_ENTRY = re.compile(r"^(\*{0,2}\w[\w, *]*) : ", re.MULTILINE)


class TextsOfParameters(griffe.Extension):
    """Rewrites these sections for the parser, which expects a type after the colon."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of an object before it is parsed."""
        if obj.docstring:
            obj.docstring.value = _SECTION.sub(
                lambda found: found[1] + _ENTRY.sub(r"\1\n    ", found[2]), obj.docstring.value
            )
