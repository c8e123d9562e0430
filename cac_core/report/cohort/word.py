"""Tables as one Word document: a heading per section, captions, notes, lines as in a journal."""

from __future__ import annotations

import copy
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from docx import Document
from docx.document import Document as WordDocument
from docx.enum.section import WD_ORIENT
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.oxml.xmlchemy import BaseOxmlElement
from docx.shared import Mm, Pt

from cac_core.report.cohort.sections import cell_text, cell_texts
from cac_core.report.page import DataTable
from cac_core.report.table_rows import variables

#: The same tables give the same bytes.
_DATE = datetime(2000, 1, 1, tzinfo=UTC)
_ZIP_DATE = (2000, 1, 1, 0, 0, 0)
_LINE = "8"  # eighths of a point


@dataclass(frozen=True, slots=True)
class TableSection:
    """A heading and its tables."""

    title: str
    tables: Sequence[DataTable]


def word_document(title: str, sections: Sequence[TableSection]) -> bytes:
    """All tables of a report, to be copied into a manuscript.

    Header rows repeat on each page, and pages break between variables.
    """
    document = Document()
    _set_up(document, title)
    document.add_heading(title, 0)
    for section in sections:
        document.add_heading(section.title, 1)
        for table in section.tables:
            _add(document, table)
    stream = io.BytesIO()
    document.save(stream)
    return _dated(stream.getvalue())


def _set_up(document: WordDocument, title: str) -> None:
    page = document.sections[0]
    page.orientation = WD_ORIENT.LANDSCAPE
    page.page_width, page.page_height = Mm(297), Mm(210)
    page.left_margin = page.right_margin = page.top_margin = page.bottom_margin = Mm(18)
    normal = document.styles["Normal"]
    normal.font.name, normal.font.size = "Arial", Pt(9)
    normal.paragraph_format.space_after = Pt(0)
    caption = document.styles["Caption"]
    caption.font.name, caption.font.size, caption.font.bold = "Arial", Pt(9), True
    caption.font.color.rgb = None
    caption.paragraph_format.keep_with_next = True
    caption.paragraph_format.space_before, caption.paragraph_format.space_after = Pt(12), Pt(3)
    known = document.core_properties
    known.title, known.language, known.author, known.comments = title, "en", "", ""
    known.created = known.modified = _DATE


def _add(document: WordDocument, table: DataTable) -> None:
    document.add_paragraph(table.caption, style="Caption")
    rows = cell_texts(table) or [[table.empty, *([""] * (len(table.columns) - 1))]]
    heads = [cell_text(column.title) for column in table.columns]
    drawn = document.add_table(rows=0, cols=len(heads))
    drawn.autofit = True
    body = drawn._tbl
    numeric = [column.numeric for column in table.columns]
    body.append(_row(heads, numeric, head=True, keep=True, last=False))
    together = {at for group in variables([row[0] for row in rows]) for at in group[:-1]}
    for at, row in enumerate(rows):
        end = at == len(rows) - 1
        body.append(_row(row, numeric, head=False, keep=at in together, last=end))
    note = document.add_paragraph(cell_text(table.note))
    note.paragraph_format.space_before, note.paragraph_format.space_after = Pt(3), Pt(10)
    for run in note.runs:
        run.font.size = Pt(8)


def _row(
    texts: Sequence[str], numeric: Sequence[bool], *, head: bool, keep: bool, last: bool
) -> BaseOxmlElement:
    row = OxmlElement("w:tr")
    look = _inside(row, "w:trPr")
    _inside(look, "w:cantSplit")
    if head:
        _inside(look, "w:tblHeader")
    for text, right in zip(texts, numeric, strict=True):
        cell = _inside(row, "w:tc")
        _lines_of(cell, head=head, last=last)
        paragraph = _inside(cell, "w:p")
        style = _inside(paragraph, "w:pPr")
        if keep:
            _inside(style, "w:keepNext")
        if right:
            _inside(style, "w:jc", val="right")
        run = _inside(paragraph, "w:r")
        font = _inside(run, "w:rPr")
        if head:
            _inside(font, "w:b")
        _inside(font, "w:sz", val="16")
        written = _inside(run, "w:t")
        written.text = text
        written.set(qn("xml:space"), "preserve")
    return row


def _lines_of(cell: BaseOxmlElement, *, head: bool, last: bool) -> None:
    """Rules above and below the header, and below the last line."""
    if not head and not last:
        return
    borders = _inside(_inside(cell, "w:tcPr"), "w:tcBorders")
    for side in ("top", "bottom") if head else ("bottom",):
        _inside(borders, f"w:{side}", val="single", sz=_LINE, space="0", color="000000")


def _inside(parent: BaseOxmlElement, tag: str, **attributes: str) -> BaseOxmlElement:
    child = OxmlElement(tag)
    for name, value in attributes.items():
        child.set(qn(f"w:{name}"), value)
    parent.append(child)
    return child


def _dated(document: bytes) -> bytes:
    """The same archive with a fixed date for each of its files."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(document)) as given,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as kept,
    ):
        for entry in given.infolist():
            dated = copy.copy(entry)
            dated.date_time = _ZIP_DATE
            kept.writestr(dated, given.read(entry), zipfile.ZIP_DEFLATED)
    return stream.getvalue()
