"""The page as PDF: bookmarks, tags, page breaks; labels are text and never markup."""

from __future__ import annotations

import io
from functools import cache

import pytest
from pypdf import PdfReader
from pypdf.generic import ArrayObject, DictionaryObject

from cac_core.report.pdf import to_pdf
from cac_core.report.svg import with_own_images

_DRAWING = (
    '<svg viewBox="0 0 20 10"><title>A &lt;line&gt;</title><path d="M0 0h20" stroke="red"/></svg>'
)
_PAGE = f"""<html><head><title>x</title></head><body><header><h1>The title</h1></header><main>
<section id="one"><h2>First</h2><p>See <a href="#two">below</a>.</p>
<figure id="a">{_DRAWING}<figcaption>A figure</figcaption></figure>
<h3>Inside</h3><ul><li>an item</li></ul></section>
<section id="two"><h2>Second</h2>
<table><caption>Numbers</caption><thead><tr><th>Name</th><th class="number">n</th></tr></thead>
<tbody><tr><th>a</th><td class="number">1</td></tr></tbody></table></section>
</main><script>nothing</script></body></html>"""


@cache
def _read(html: str) -> PdfReader:
    return PdfReader(io.BytesIO(to_pdf(html, "A title")))


def _tags(node: object) -> list[str]:
    """Names of the structure elements, in the order of reading."""
    if isinstance(node, ArrayObject):
        return [tag for one in node for tag in _tags(one.get_object())]
    if not isinstance(node, DictionaryObject):
        return []
    own = [str(node["/S"])] if "/S" in node else []
    return own + (_tags(node["/K"].get_object()) if "/K" in node else [])


def _alternatives(node: object) -> list[str]:
    """Text alternatives of the structure elements."""
    if isinstance(node, ArrayObject):
        return [alt for one in node for alt in _alternatives(one.get_object())]
    if not isinstance(node, DictionaryObject):
        return []
    own = [str(node["/Alt"])] if "/Alt" in node else []
    return own + (_alternatives(node["/K"].get_object()) if "/K" in node else [])


def test_headings_are_bookmarks() -> None:
    first, inside, second = _read(_PAGE).outline
    assert (first["/Title"], second["/Title"]) == ("First", "Second")
    assert [one["/Title"] for one in inside] == ["Inside"]


def test_it_has_tags_language_title_and_text_alternatives() -> None:
    reader = _read(_PAGE)
    root = reader.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"] is not None and root["/Lang"] == "en"
    assert reader.metadata is not None and reader.metadata.title == "A title"
    tags = _tags(root["/StructTreeRoot"])
    assert {"/H1", "/H2", "/P", "/Figure", "/Caption", "/L", "/Table", "/TH", "/TD"} <= set(tags)
    assert "A <line>" in _alternatives(root["/StructTreeRoot"])
    assert "nothing" not in reader.pages[0].extract_text()


def _long(variables: int, levels: int) -> str:
    lines = "".join(
        f"<tr><th>Variable {name}</th><td></td><td>0.{name:03}</td></tr>"
        + "".join(f"<tr><th>\u2003level {name}.{level}</th><td>{level}</td><td></td></tr>"
                  for level in range(levels))
        for name in range(variables)
    )  # fmt: skip
    head = "<thead><tr><th>Characteristic</th><th>All</th><th>p</th></tr></thead>"
    return f"<table><caption>Long</caption>{head}<tbody>{lines}</tbody></table>"


def test_tables_break_between_variables_and_repeat_their_header() -> None:
    pages = [page.extract_text() for page in _read(_long(40, 6)).pages]
    assert len(pages) > 2
    for text in pages:
        assert "Characteristic" in text
        for name in range(40):
            shown = [f"level {name}.{level}" in text for level in range(6)]
            assert all(shown) or not any(shown)
            assert (f"Variable {name}\n" in text + "\n") <= all(shown)


def test_words_as_wide_as_a_column_are_broken() -> None:
    run = "20261130T232546-5caa76"
    words = (run, "2026-11-30 23:25:54+00:00", "synthetic", 64 * "a", 64 * "b", run, "0.1.0")
    cells = "".join(f"<td>{word}</td>" for word in words)
    head = "".join(f"<th>column_{number}</th>" for number in range(len(words)))
    page = f"<table><thead><tr>{head}</tr></thead><tbody><tr>{cells}</tr></tbody></table>"
    lines = _read(page).pages[0].extract_text().splitlines()
    # Whole, it lay over the next column.
    assert not any(run in line for line in lines)


@pytest.mark.parametrize("label", ['#panic("x")', '$a_b$ \\ "q" // `c`', "*bold* @ref <tag> ]"])
def test_labels_are_no_markup(label: str) -> None:
    escaped = label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _read(f"<h2>Title</h2><p>{escaped}</p>").pages[0].extract_text()
    assert label.replace(" ", "") in text.replace(" ", "").replace("\n", "")


def test_signs_that_no_font_has_do_not_stop_it() -> None:
    text = _read("<h2>Title</h2><p>\u51a0\U000f0000 and more</p>").pages[0].extract_text()
    assert "and more" in text


def test_links_to_other_files_are_left_out() -> None:
    inside = '<section id="top"><h2>T</h2><p><a{}>a</a> <a href="#top">up</a></p></section>'
    linked, plain = inside.format(' href="a.html"'), inside.format("")
    assert to_pdf(linked, "title") == to_pdf(plain, "title")
    (link,) = _read(linked).pages[0]["/Annots"]
    assert link.get_object()["/Subtype"] == "/Link"


def test_a_drawing_that_shows_the_image_of_another_gets_its_own() -> None:
    html = (
        '<svg><image id="a-image" width="2" href="data:x"/></svg><svg><use href="#a-image"/></svg>'
    )
    shown = with_own_images(html)
    assert shown.endswith('<svg><image width="2" href="data:x"/></svg>')
    assert with_own_images('<use href="#glyph"/>') == '<use href="#glyph"/>'
