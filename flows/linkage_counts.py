"""Counts of a linkage as its summary shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.cohort.disclosure import Disclosure
from cac_core.cohort.extract_parts import Part
from flows.linkage_summaries import CellCount, ExtractSummary, FaultCount, FlowCount
from flows.quarantine import lost_rows
from flows.summaries import Count, Rows
from schemas.codes import FlowStep


def flow_counts(flow_rows: pa.Table, shown: Disclosure) -> list[FlowCount]:
    """Patients by step of the table `flow`, with what each step names."""
    steps = Counter(flow_rows["step"].to_pylist())
    counts = shown.table([steps[step.value] for step in FlowStep])
    pairs = zip(flow_rows["step"].to_pylist(), flow_rows["detail"].to_pylist(), strict=True)
    details = Counter((step, detail) for step, detail in pairs if detail is not None)
    return [
        FlowCount(step.value, step.description, count, _details(details, step, count, shown))
        for step, count in zip(FlowStep, counts, strict=True)
    ]


def _details(
    counted: Counter[tuple[str, str]], step: FlowStep, total: Count, shown: Disclosure
) -> dict[str, Count]:
    """Patients of one step by its detail, most frequent first."""
    found = [(detail, n) for (name, detail), n in counted.items() if name == step.value]
    found.sort(key=lambda item: (-item[1], item[0]))
    counts: list[Count] = shown.table([n for _, n in found])
    if not isinstance(total, int):  # they would give it away
        counts = [total] * len(found)
    return {detail: n for (detail, _), n in zip(found, counts, strict=True)}


def extract_summary(part: Part, aside: pa.Table, lines: Mapping[str, int]) -> ExtractSummary:
    """One file of the linkage.

    Parameters
    ----------
    aside : the table `quarantine` of the linkage.
    lines : lines in quarantine, by extract.
    """
    label = part.extract.label
    lost = lost_rows(aside.filter(pc.equal(aside["source_file"], label)))
    counted = lost.group_by(["column", "reason"]).aggregate([([], "count_all")]).to_pylist()
    later = Counter({(row["column"], row["reason"]): row["count_all"] for row in counted})
    later.subtract(part.faults)  # what was found while reading
    return ExtractSummary(
        source=part.extract.source.name,
        table=part.extract.source.table,
        label=label,
        file=part.extract.path.name,
        lines=part.n_lines,
        rows=part.n_rows,
        unusable=part.n_unusable,
        blank=part.n_blank,
        faults=[FaultCount(*key, n) for key, n in sorted(part.faults.items(), key=str)],
        cells=[CellCount(*key, n) for key, n in sorted(part.cells.items(), key=str)],
        read_before=part.reused,
        found_later=[FaultCount(*key, n) for key, n in sorted(later.items(), key=str) if n > 0],
        in_quarantine=lines.get(label, 0),
    )


def match_rows(matches: pa.Table, shown: Disclosure) -> Rows:
    """Rows of the table `matches`, with small counts hidden where that is wanted."""
    ways = ("n_by_key_and_date", "n_by_accession", "n_unmatched")
    rows: Rows = matches.to_pylist()
    for row in rows:
        counts = [row[way] for way in ways]
        given = shown.table(counts)
        if given != counts:  # the rate would give the counts away
            row["match_rate"] = None
        row |= dict(zip(ways, given, strict=True))
    return rows
