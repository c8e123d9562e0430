"""Lines of a table that belong together, for renderings that break pages."""

from __future__ import annotations

from collections.abc import Sequence

#: The sign that indents a line which belongs to the line above.
INDENT = "\N{EM SPACE}"


def variables(labels: Sequence[str]) -> list[range]:
    """Lines by variable, from the first cell of each: an indented line belongs to the one above."""
    begins = [at for at, text in enumerate(labels) if at == 0 or not text.startswith(INDENT)]
    ends = [*begins[1:], len(labels)]
    return [range(begin, end) for begin, end in zip(begins, ends, strict=True)]
