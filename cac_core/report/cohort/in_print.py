"""What a report has for print: figures at the sizes of journals, tables in Word and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from markupsafe import Markup

from cac_core.report.cohort.latex import latex_document, latex_table
from cac_core.report.cohort.report import Report
from cac_core.report.cohort.sections import Block, Part, ReportSection
from cac_core.report.cohort.word import TableSection, word_document
from cac_core.report.figures import (
    ONE_COLUMN,
    PAPERS,
    TWO_COLUMNS,
    Figure,
    Paper,
    as_bytes,
    on_paper,
    papers_of,
)
from cac_core.report.page import DataTable
from cac_core.report.svg import inline_svg

#: Files with all tables, beside those of each table.
WORD, LATEX = "tables/report-tables.docx", "tables/report-tables.tex"
TABLE_DOCUMENTS = (("Word", WORD), ("LaTeX", LATEX))
#: A table of the paper in the title of a section.
_PAPER_TABLE = re.compile(r"(?:Supplemental )?Table \d+")
#: Kinds of files of a figure at the sizes of journals; without the request, a PDF of one size.
_KINDS = ("pdf", "tiff")


class PrintedFigures:
    """The figures of a report on paper, each size drawn once."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._drawn: dict[tuple[str, Paper], Figure] = {}

    def inline(self, sections: Sequence[ReportSection]) -> Mapping[str, Markup]:
        """Each figure of the printed page by identifier: half figures in one column.

        A figure that has no such width is shown as on the screen.
        """
        found = {}
        for part in _parts(sections):
            if part.figure is not None:
                name = part.figure.identifier
                paper = ONE_COLUMN if part.half else TWO_COLUMNS
                drawing, description = self._report.drawings[name]
                there = paper in papers_of(drawing)
                figure = self._on(name, paper) if there else drawing
                svg = as_bytes(figure, "svg", for_print=True)
                found[name] = inline_svg(svg, f"print-{name}", description)
        return found

    def slim(self, name: str) -> Markup:
        """A figure in one column, for a narrow screen; empty if it has no such width."""
        drawing, description = self._report.drawings[name]
        if ONE_COLUMN not in papers_of(drawing):
            return Markup()
        svg = as_bytes(self._on(name, ONE_COLUMN), "svg")
        return inline_svg(svg, f"slim-{name}", description)

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Each figure as PDF in its narrowest width; for a journal, in all widths and as TIFF."""
        for name, (drawing, _) in self._report.drawings.items():
            papers = [paper for paper in PAPERS if paper in papers_of(drawing)]
            for paper in papers if self._report.journal else papers[:1]:
                figure = self._on(name, paper)
                for kind in _KINDS if self._report.journal else _KINDS[:1]:
                    yield journal_file(name, paper, kind), as_bytes(figure, kind)

    def _on(self, name: str, paper: Paper) -> Figure:
        if (name, paper) not in self._drawn:
            self._drawn[name, paper] = on_paper(self._report.drawings[name][0], paper)
        return self._drawn[name, paper]


def journal_file(name: str, paper: Paper, kind: str) -> str:
    """Name of a figure's file at the size of a journal, in the folder of the report."""
    return f"figures/journal/{name}-{paper.name}.{kind}"


def table_files(
    report: Report, sections: Sequence[ReportSection], title: str
) -> Iterator[tuple[str, bytes]]:
    """Each table in LaTeX, and all of them in one document of Word and one of LaTeX.

    Tables of single cases are left out of both documents, as in the PDF.
    """
    for name, table in report.tables.items():
        yield f"tables/{name}.tex", latex_table(table).encode()
    kept = [
        TableSection(section.title, tables)
        for section in sections
        if (tables := [table for table in _tables(section) if not table.filterable])
    ]
    yield WORD, word_document(title, _numbered(report, sections))
    names = [table.identifier for section in kept for table in section.tables]
    yield LATEX, latex_document(names).encode()


def _numbered(report: Report, sections: Sequence[ReportSection]) -> list[TableSection]:
    """Tables by section, with captions that have a number and differ from each other.

    The number is that of the paper, with a letter if a section has several tables; tables that the
    paper does not have are counted as additional ones.
    """
    found, more = [], 0
    for section in sections:
        tables = [(block, table) for block, table in _in_blocks(section) if not table.filterable]
        known = _PAPER_TABLE.findall(section.title)
        numbered = []
        for at, (block, table) in enumerate(tables):
            if known:
                number = known[-1] + (_letter(at) if len(tables) > 1 else "")
            else:
                more += 1
                number = f"Additional Table {more}"
            caption = f"{number}. {table.caption}{_whom(report, section, block)}"
            numbered.append(replace(table, caption=caption))
        if numbered:
            found.append(TableSection(section.title, numbered))
    return found


def _whom(report: Report, section: ReportSection, block: Block) -> str:
    """Outcome and population of a block, as far as a caption needs them."""
    parts = [section.only] if section.only else []
    if block.population is not None and len(report.populations) > 1:
        parts.append(report.plan.populations[block.population].description)
    return f" ({', '.join(parts)})" if parts else ""


def _letter(at: int) -> str:
    """Letters a to z, then aa, ab and so on."""
    return (_letter(at // 26 - 1) if at >= 26 else "") + chr(ord("a") + at % 26)


def _in_blocks(section: ReportSection) -> Iterator[tuple[Block, DataTable]]:
    for block in section.blocks:
        alone = ReportSection(section.identifier, section.title, [block])
        yield from ((block, table) for table in _tables(alone))


def _tables(section: ReportSection) -> Iterator[DataTable]:
    for part in _parts([section]):
        if part.table is not None:
            yield part.table
        elif part.figure is not None and part.figure.table is not None:
            yield part.figure.table


def _parts(sections: Sequence[ReportSection]) -> Iterator[Part]:
    return (part for section in sections for block in section.blocks for part in block.parts)
