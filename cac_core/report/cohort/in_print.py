"""What a report has for print: figures at the sizes of journals, tables in Word and LaTeX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

from cac_core.report.cohort.latex import latex_document, latex_table
from cac_core.report.cohort.report import Report
from cac_core.report.cohort.sections import Part, ReportSection
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
#: Kinds of files of a figure at the size of a journal.
JOURNAL_KINDS = ("pdf", "tiff")


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

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Each figure in one and two columns, as PDF and TIFF."""
        for name, (drawing, _) in self._report.drawings.items():
            for paper in PAPERS:
                if paper in papers_of(drawing):
                    figure = self._on(name, paper)
                    for kind in JOURNAL_KINDS:
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
    yield WORD, word_document(title, kept)
    names = [table.identifier for section in kept for table in section.tables]
    yield LATEX, latex_document(names).encode()


def _tables(section: ReportSection) -> Iterator[DataTable]:
    for part in _parts([section]):
        if part.table is not None:
            yield part.table
        elif part.figure is not None and part.figure.table is not None:
            yield part.figure.table


def _parts(sections: Sequence[ReportSection]) -> Iterator[Part]:
    return (part for section in sections for block in section.blocks for part in block.parts)
