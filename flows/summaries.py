"""What a run tells at its end: for people, for programs, and for the Prefect page."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunSummary:
    """Counts of one rescoring run."""

    run_id: str
    outcome: str
    studies: int
    scored: int
    rejected: int
    failed: int
    skipped: int
    left: int
    reasons: dict[str, int]
    file_reasons: dict[str, int]
    seconds: float
    seconds_scoring: float
    warehouse: str
    model: str
    archive_page: str | None = None

    @property
    def studies_per_second(self) -> float:
        """Finished studies per second of scoring; 0 where nothing was to do."""
        done = self.scored + self.rejected + self.failed
        return done / self.seconds_scoring if done and self.seconds_scoring > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of `cac score --json`."""
        values = dataclasses.asdict(self)
        values["seconds"] = round(self.seconds, 3)
        values["seconds_scoring"] = round(self.seconds_scoring, 3)
        values["studies_per_second"] = round(self.studies_per_second, 4)
        return values

    def as_markdown(self) -> str:
        """The artifact on the Prefect page of the run."""
        rows = [
            ("studies in the archive", self.studies),
            ("scored", self.scored),
            ("rejected", self.rejected),
            ("failed", self.failed),
            ("skipped, already in the ledger", self.skipped),
            ("left for the next run", self.left),
            ("seconds", f"{self.seconds:.0f}"),
            ("studies per second", f"{self.studies_per_second:.2f}"),
            ("model", f"`{self.model}`"),
            ("outcome", self.outcome),
            ("page of the archive", f"`{self.archive_page}`" if self.archive_page else "not made"),
        ]
        lines = [f"# Rescoring run {self.run_id}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in rows]
        for title, counts in (
            ("Studies by reason", self.reasons),
            ("Files by reason", self.file_reasons),
        ):
            if counts:
                lines += ["", f"## {title}", "", "| reason | n |", "|---|---|"]
                lines += [f"| `{name}` | {n} |" for name, n in sorted(counts.items())]
        return "\n".join(lines)
