"""Reporting checklists: the section that answers each item, or a note for the investigator."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files

from cac_core.report.cohort.report import Report
from cac_core.report.cohort.sections import Block, ReportSection
from cac_core.report.page import Cell, Column, DataTable

#: Files of `cac_core/report/checklists`, in the order of the page.
NAMES = ("prime", "tripod_ai", "claim")
OPEN = "to be filled in by the investigator"


@dataclass(frozen=True, slots=True)
class Item:
    """One item; `section` is the part of the report that answers it, or None."""

    number: str
    text: str
    section: str | None = None
    answer: str = OPEN


@dataclass(frozen=True, slots=True)
class Checklist:
    """A checklist, its source, and its items."""

    title: str
    source: str
    items: tuple[Item, ...]


def load_checklist(name: str) -> Checklist:
    """One of the shipped checklists, by its name in `NAMES`."""
    path = files("cac_core.report").joinpath("checklists", f"{name}.toml")
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    items = tuple(Item(**item) for item in values["item"])
    return Checklist(values["title"], values["source"], items)


def _answer(item: Item, report: Report) -> Cell:
    """Link to the answer, with a note if its section is incomplete."""
    if item.section is None:
        return Cell(item.answer)
    gaps = item.section in report.incomplete
    text = f"{item.answer}; in part, see the gaps of the section" if gaps else item.answer
    return Cell(text, href=f"#{item.section}")


def checklists_section(report: Report) -> ReportSection:
    """A table for each checklist, with links to the answers."""
    section = ReportSection("checklists", "Reporting checklists")
    for name in NAMES:
        known, block = load_checklist(name), Block()
        rows: list[list[Cell | str]] = [
            [
                item.number,
                item.text,
                _answer(item, report),
            ]
            for item in known.items
        ]
        table = DataTable(
            f"checklist-{name.replace('_', '-')}",
            known.title,
            (Column("Item"), Column("What it asks"), Column("Where it is answered")),
            rows,
            note=f"Items are abbreviated; the authoritative text is {known.source}.",
            sortable=False,
        )
        block.add(report.keep_table(table), f"Show {known.title}")
        section.blocks.append(block)
    return section
