"""Pages in headless Chromium: no error, no request, sorted, filtered, reachable by keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest

from cac_core.cohort.archive import archive_state
from cac_core.report.archive_page import archive_page
from cac_core.report.study_page import study_page
from tests.browser import DESKTOP, PHONE, assert_sound, opened
from tests.builders.archives import warehouse_of_nights
from tests.cac_core.report.test_study_page import record


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    texts = {
        "archive": archive_page(archive_state(warehouse_of_nights(folder / "wh"))),
        "study": study_page(record()),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.mark.parametrize(
    ("size", "scheme"),
    [(DESKTOP, "light"), (PHONE, "light"), (DESKTOP, "dark")],
    ids=["desktop", "phone", "dark"],
)
@pytest.mark.parametrize("name", ["archive", "study"])
def test_a_page_opens_from_disk_without_a_fault(
    pages: dict[str, Path], name: str, size: dict[str, int], scheme: str
) -> None:
    assert_sound(pages[name], size, scheme)


def test_tables_sort_and_filter(pages: dict[str, Path]) -> None:
    with opened(pages["archive"]) as visit:
        page = visit.page
        cells = page.locator("#study-reasons tbody td:nth-child(4)")
        header = page.locator("#study-reasons th", has_text="studies")
        header.get_by_role("button").click()
        ascending = [int(text) for text in cells.all_text_contents()]
        assert ascending == sorted(ascending)
        assert header.get_attribute("aria-sort") == "ascending"
        header.get_by_role("button").press("Enter")
        assert [int(text) for text in cells.all_text_contents()] == ascending[::-1]
        assert header.get_attribute("aria-sort") == "descending"
        page.locator("#nights details summary").click()
        page.get_by_label("Show rows that contain").first.fill("interrupted 06-06")
        assert page.locator("#runs tbody tr:visible").count() == 1
        assert page.locator("#runs").get_by_role("status").text_content() == "1 of 14 rows"
        page.get_by_label("Show rows that contain").first.fill("")
        assert page.locator("#runs tbody tr:visible").count() == 14


def test_numbers_sort_by_value_and_empty_cells_come_last(pages: dict[str, Path]) -> None:
    with opened(pages["archive"]) as visit:
        same = visit.page.locator("#models th", has_text="scored by both").get_by_role("button")
        for _ in range(2):
            same.click()
            models = visit.page.locator("#models tbody tr th").all_text_contents()
            assert models == ["convlstm-old", "convlstm-test"]
        share = visit.page.locator("#scanner-table th", has_text="noise, HU").get_by_role("button")
        share.click()
        noise = visit.page.locator("#scanner-table tbody tr td:nth-child(6)").all_text_contents()
        assert [float(text) for text in noise] == sorted(float(text) for text in noise)


def test_the_keyboard_reaches_the_content_first(pages: dict[str, Path]) -> None:
    with opened(pages["study"]) as visit:
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.textContent") == "Skip to the content"
        visit.page.keyboard.press("Enter")
        assert visit.page.evaluate("document.activeElement.id") == "content"


def test_on_paper_everything_is_open(pages: dict[str, Path], tmp_path: Path) -> None:
    with opened(pages["archive"]) as visit:
        visit.page.pdf(path=str(tmp_path / "page.pdf"))
        assert visit.page.evaluate("[...document.querySelectorAll('details')].every(d => d.open)")
        visit.page.emulate_media(media="print")
        assert not visit.page.locator("nav").is_visible()
        assert not visit.page.locator(".filter").first.is_visible()


def test_the_key_slices_are_drawn(pages: dict[str, Path]) -> None:
    """The marked picture shows the grey picture of the plain one below its contour."""
    with opened(pages["study"]) as visit:
        boxes = visit.page.locator("#slice-5 svg").all()
        assert len(boxes) == 2
        plain, marked = (box.bounding_box() for box in boxes)
        assert plain["width"] > 100
        assert plain["width"] == pytest.approx(marked["width"], abs=1)
        shown = visit.page.evaluate(
            "document.querySelector('#slice-5 svg:last-of-type use').getBBox().width"
        )
        assert shown == pytest.approx(9.8, abs=0.01)
