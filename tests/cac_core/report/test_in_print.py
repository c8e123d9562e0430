"""Tables of the report in Word and LaTeX: the same cells as on the page."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from docx import Document
from docx.oxml.ns import qn
from hypothesis import given
from hypothesis import strategies as st

from cac_core.report.cohort.in_print import LATEX, WORD
from cac_core.report.cohort.latex import latex_table, latex_text
from cac_core.report.cohort.sections import cell_text, cell_texts
from cac_core.report.cohort.shown_estimates import plain
from cac_core.report.cohort.word import TableSection, word_document
from cac_core.report.figures import papers_of
from cac_core.report.page import Cell, Column, DataTable
from tests.builders.reports import nasty_report

TABLE = DataTable(
    "tab",
    "Patients & <signs>",
    (Column("Name_1"), Column("All, %", True), Column("p", True)),
    [
        ["Sex, n (%)", "", "<0.001"],
        ["\N{EM SPACE}female", Cell("5 (10 %)"), ""],
        ["\N{EM SPACE}male", "[45] #1 $2 {x} ~ ^ \\", ""],
        ["Age \N{DAGGER}", "60", "0.040"],
    ],
    note="100 % of {all}",
)


def test_word_has_the_cells_captions_and_notes_of_every_table() -> None:
    report, done = nasty_report()
    document = Document(io.BytesIO(done.files[WORD]))
    captions = [one.text for one in document.paragraphs if one.style.name == "Caption"]
    shown = [table for table in report.tables.values() if not table.filterable]
    assert len(document.tables) == len(captions) == len(shown)
    assert len(set(captions)) == len(captions)
    numbered = re.compile(r"((?:Supplemental |Additional )?Table \d+[a-z]*)\. (.+)")
    parts = [numbered.fullmatch(caption) for caption in captions]
    assert all(parts) and len({part[1] for part in parts if part}) == len(captions)
    by_caption = dict(zip(captions, document.tables, strict=True))
    for table in shown[:5]:
        (caption,) = (one for one in captions if one.split(". ", 1)[1].startswith(table.caption))
        drawn = by_caption[caption]
        rows = [[cell.text for cell in row.cells] for row in drawn.rows]
        assert rows[0] == [cell_text(column.title) for column in table.columns]
        assert rows[1:] == cell_texts(table)
    notes = {one.text for one in document.paragraphs}
    assert {plain(table.note) for table in shown} <= notes


def test_each_figure_is_a_vector_pdf_in_its_narrowest_width() -> None:
    """Other widths, and TIFF, are made on request."""
    report, done = nasty_report()
    wanted = {
        f"figures/journal/{name}-{papers_of(drawing)[0].name}.pdf"
        for name, (drawing, _) in report.drawings.items()
    }
    files = {name: data for name, data in done.files.items() if "/journal/" in name}
    assert files.keys() == wanted and all(data.startswith(b"%PDF") for data in files.values())
    page = done.files["index.html"].decode()
    assert page.count("--journal") == 1
    assert re.search(r'<p class="files">This figure as .*col\.pdf.*--journal', page)


def test_word_repeats_headers_and_keeps_variables_together() -> None:
    made = word_document("Title", [TableSection("Section", [TABLE])])
    assert made == word_document("Title", [TableSection("Section", [TABLE])])
    document = Document(io.BytesIO(made))
    (table,) = document.tables
    assert table.rows[0]._tr.trPr.find(qn("w:tblHeader")) is not None
    kept = [
        row.cells[0].paragraphs[0].paragraph_format.keep_with_next is True for row in table.rows
    ]
    assert kept == [True, True, True, False, False]
    assert document.core_properties.title == "Title"


def test_latex_has_a_line_per_row_and_no_page_break_inside_a_variable() -> None:
    text = latex_table(TABLE)
    lines = [line for line in text.splitlines() if line.startswith("{}")]
    assert len(lines) == 4
    assert [line.endswith(r"\\*") for line in lines] == [True, True, False, False]
    assert all(len(re.findall(r"(?<!\\)&", line)) == 2 for line in lines)
    assert r"\caption{Patients \& \textless{}signs\textgreater{}}" in text
    assert text.count(r"\begin{") == text.count(r"\end{")


@given(st.text(max_size=40))
def test_no_sign_of_a_text_has_a_meaning_in_latex(text: str) -> None:
    made = latex_text(text)
    bare = re.sub(r"\\[a-zA-Z]+(\{\}| )|\\[{}&%$#_]|\$(\\[a-z]+|-|\^2)\$", "", made)
    assert not re.search(r"[\\{}&%$#_^<>|]", bare)


def test_every_table_of_a_report_is_in_latex() -> None:
    report, done = nasty_report()
    document = done.files[LATEX].decode()
    for name, table in report.tables.items():
        text = done.files[f"tables/{name}.tex"].decode()
        assert text.count("\n{}") == len(table.rows)
        assert (rf"\input{{{name}}}" in document) == (not table.filterable)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_the_document_of_all_tables_compiles(tmp_path: Path) -> None:
    _, done = nasty_report()
    for name, content in done.files.items():
        if name.endswith(".tex"):
            (tmp_path / Path(name).name).write_bytes(content)
    made = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", Path(LATEX).name],
        cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-2000:]
