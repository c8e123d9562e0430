"""What was set aside of an extract: one record per file, column and reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SetAside:
    """Rows or cells of an extract that were set aside for one reason.

    `file` is the source and the number of the file in it. `examples` are values with A for letters
    and 9 for digits, most frequent first, or code words; none of identifiers.
    """

    source: str
    file: str
    table: str
    column: str | None
    reason: str
    meaning: str
    rows: int
    row_kept: bool
    examples: list[str]
    change: str
