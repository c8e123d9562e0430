"""Section of example cases: marks of the networks with the scores of all readings (Figure 2)."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from markupsafe import Markup, escape

from cac_core.analysis.plan import Plan
from cac_core.report.cohort.report import Report, TableRow
from cac_core.report.cohort.sections import Block, Part, ReportSection
from cac_core.report.overlay import key_slice

#: Most discrepant examples of each sign.
_APART = 2


def example_studies(plan: Plan, linked: pa.Table, discrepancies: pa.Table | None) -> list[str]:
    """Study keys of the examples, in the order they are shown.

    For each category the first study by key whose readings agree (keys do not depend on the
    patient), then the cases that are furthest apart. Empty without a second reading.

    Parameters
    ----------
    linked, discrepancies : the tables of that name.
    """
    if not plan.compare:
        return []
    first, second = plan.compare[0]
    terms = [plan.sources[name].term for name in (first, second)]
    names = ["study_key", *(term.source for term in terms)]
    if any(name not in linked.column_names for name in names):
        return []
    rows = linked.select(names).sort_by("study_key").to_pylist()
    found = []
    for level in terms[0].levels:
        same = (r["study_key"] for r in rows if r[names[1]] == level == r[names[2]])
        found += [key for key in (next(same, None),) if key is not None]
    return [*found, *_furthest(discrepancies, first, second)]


def case_section(report: Report) -> ReportSection:
    """Key slices of the examples, unmarked and marked, with both readings."""
    section, block = ReportSection("figure-2", "Example cases (Figure 2)"), Block()
    section.blocks.append(block)
    if report.hidden:
        block.missing(["pictures of single patients are not shown, since small counts are hidden"])
        return section
    shown = {key: rows for key, rows in report.facts.previews.items() if rows}
    if not shown:
        block.missing(
            [
                "the warehouse has no pictures of these studies, which were scored without "
                "previews; score them again to make pictures"
            ]
        )
        return section
    rows = {
        row["study_key"]: row
        for row in report.facts.linked.to_pylist()
        if row["study_key"] in shown
    }
    figures = Markup("").join(
        _case(report, key, rows[key], slices) for key, slices in shown.items()
    )
    block.say(
        "One study per category in which the readings agree, and the studies in which they are "
        "furthest apart: the slice with most coronary calcium, plain and with the heart contour, "
        "coronary calcium and other calcium as marked by the networks. The expert's marks are not "
        "in the warehouse; the scores of both are given below."
    )
    block.parts.append(Part(html=Markup('<div class="cases">{}</div>').format(figures)))
    return section


def _case(report: Report, key: str, linked: TableRow, slices: Sequence[TableRow]) -> Markup:
    most = max(slices, key=lambda row: (row["agatston"], -row["slice_index"]))
    drawn = key_slice(most, f"case-{key[:12]}", f"Slice {most['slice_index']} of study {key[:12]}")
    readings = []
    for source in report.plan.sources.values():
        if linked.get(source.term.source) is not None:
            score = linked.get(source.score) if source.score else None
            number = "" if score is None else f" ({score:,.1f})"
            readings.append(f"{source.label} {linked[source.term.source]}{number}")
    page = report.facts.pages.get(key)
    name = Markup('<a href="{}">{}</a>').format(page, key) if page else escape(key)
    return Markup(
        '<figure><div class="pair">{}{}</div><figcaption>{}<br><span class="key">{}</span>'
        "</figcaption></figure>"
    ).format(drawn.plain, drawn.marked, "; ".join(readings), name)


def _furthest(discrepancies: pa.Table | None, first: str, second: str) -> list[str]:
    """Cases furthest apart, up to `_APART` of each sign."""
    if discrepancies is None:
        return []
    mine = [
        row
        for row in discrepancies.to_pylist()
        if (row["compared"], row["reference"]) == (first, second)
    ]
    above = [row["study_key"] for row in mine if row["categories_apart"] > 0]
    below = [row["study_key"] for row in mine if row["categories_apart"] < 0]
    return [*above[:_APART], *below[:_APART]]
