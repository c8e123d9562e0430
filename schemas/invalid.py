"""The fault of a table that violates its schema."""

from __future__ import annotations


class InvalidTableError(Exception):
    """A table violates its schema. Lists every failed column and check, never a value.

    Parameters
    ----------
    table : name of the table.
    failures : one line per failed column and check.
    """

    def __init__(self, table: str, failures: tuple[str, ...]) -> None:
        super().__init__(table, failures)
        self.table = table
        self.failures = failures

    def __str__(self) -> str:
        return f"table `{self.table}` violates its schema: " + "; ".join(self.failures)
