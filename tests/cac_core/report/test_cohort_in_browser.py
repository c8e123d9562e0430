"""The cohort report in headless Chromium: sound on desk and phone, switched, walked by keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import DESKTOP, PHONE, assert_sound, opened
from tests.builders.reports import nasty_report

pytestmark = pytest.mark.slow  # a page of ten megabytes: minutes for the browser and for axe


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_bytes(nasty_report()[1].files["index.html"])
    return path


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param(DESKTOP, "light", id="desktop"),
        pytest.param(PHONE, "light", id="phone"),
        pytest.param(DESKTOP, "dark", id="dark"),
    ],
)
def test_the_report_opens_from_disk_without_a_fault(
    report: Path, size: dict[str, int], scheme: str
) -> None:
    assert_sound(report, size, scheme)


def test_every_section_of_the_navigation_is_there(report: Path) -> None:
    with opened(report) as visit:
        links = visit.page.locator("nav a")
        assert links.count() >= 19
        for link in links.all():
            assert visit.page.locator(str(link.get_attribute("href"))).is_visible()


def test_the_outcome_is_switched(report: Path) -> None:
    with opened(report) as visit:
        page = visit.page
        assert page.locator("#table-2-mace-dl").is_visible()
        assert not page.locator("#table-2-death-dl").is_visible()
        choice = page.locator("select[data-switch=outcome]")
        choice.select_option("death")
        assert page.locator("#table-2-death-dl").is_visible()
        assert not page.locator("#table-2-mace-dl").is_visible()
        assert page.locator("#table-1-dl").is_visible()
        choice.select_option("")
        assert page.locator("#table-2-mace-dl").is_visible()


def test_a_number_tells_its_row(report: Path) -> None:
    with opened(report) as visit:
        number = visit.page.locator("#table-1-dl td data").first
        number.hover()
        row, column = str(number.get_attribute("value")).split(".")
        assert number.get_attribute("title") == f"{column} of row {row} of tables/estimates.csv"


def test_points_tell_their_study_key(report: Path) -> None:
    keys = set(nasty_report()[0].facts.linked["study_key"].to_pylist())
    with opened(report) as visit:
        box = visit.page.locator("[data-points]").first
        status = box.get_by_role("status")
        box.locator(".plot").first.press("ArrowRight")
        first = status.text_content()
        assert first.split(":")[0] in keys
        box.locator(".plot").first.press("ArrowRight")
        assert status.text_content() != first
        # The pointer finds the point that was reached by keyboard, where the mark stands.
        mark = box.locator("svg > circle").bounding_box()
        box.locator(".plot").first.press("ArrowLeft")
        visit.page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
        assert status.text_content().split(":")[0] in keys


def test_the_case_list_filters_and_sorts(report: Path) -> None:
    with opened(report) as visit:
        page = visit.page
        page.get_by_text("Show single cases").click()
        cases = page.locator("#discrepant-cases")
        every = cases.locator("tbody tr").count()
        cases.get_by_label("Show rows that contain").fill(">400")
        assert 0 < cases.locator("tbody tr:visible").count() < every
        header = cases.locator("th", has_text="DL CAC score")
        header.get_by_role("button").click()
        scores = cases.locator("tbody tr:visible td:nth-child(4)").all_text_contents()
        values = [float(text.replace(",", "")) for text in scores]
        assert values == sorted(values)


def test_a_number_is_found_from_words_and_shown(report: Path) -> None:
    with opened(report) as visit:
        page = visit.page
        page.get_by_label("Find a number").fill("dl cac category >400 death adjusted hr")
        where = "Hazard ratios for death, model with DL CAC"
        first = page.locator("#found li", has_text=where).first.locator("a")
        assert "DL CAC category: >400" in str(first.text_content())
        assert not page.locator("#table-2-death-dl").is_visible()
        first.click()
        row = page.locator("tr.reached")
        assert row.is_visible()
        assert row.evaluate("row => row.closest('section').id") == "table-2"
        assert page.locator("#found a").count() == 0
        page.get_by_label("Find a number").fill("no such words")
        assert page.locator(".find").get_by_role("status").text_content() == "0 rows"


@pytest.mark.parametrize(
    ("words", "row", "caption"),
    [
        ("weighted kappa", "Weighted kappa, linear weights", "Agreement of DL CAC with Expert CAC"),
        ("DL CAC adjusted HR", "DL CAC category: ", "Hazard ratios for MACE, model with DL CAC"),
        ("annual rate", "All patients", "Rates of MACE per 100 person-years (% per year)"),
        ("c-statistic", "", ""),
        ("c-index", "", ""),
        ("concordance index", "", ""),
        ("net reclassification events", "", "Gains by adding CAC to the covariates"),
        ("p for trend", "", "Log-rank tests, MACE"),
        ("cumulative incidence MACE", "", "Cumulative incidence of MACE and numbers at risk"),
    ],
)
def test_words_of_the_field_find_the_main_number_first(
    report: Path, words: str, row: str, caption: str
) -> None:
    with opened(report) as visit:
        visit.page.get_by_label("Find a number").fill(words)
        first = visit.page.locator("#found li").first
        shown = str(first.locator("a").text_content())
        assert shown.startswith(row)
        assert any(sign.isdigit() for sign in shown)
        assert str(first.locator(".where").text_content()).startswith(caption)


def test_rows_of_other_outcomes_are_hidden_with_them(report: Path) -> None:
    with opened(report) as visit:
        rows = visit.page.locator("#proportional-hazards tbody tr:visible th")
        for outcome, name in (("mace", "MACE"), ("death", "death")):
            visit.page.locator("select[data-switch=outcome]").select_option(outcome)
            assert set(rows.all_text_contents()) == {name}


#: Texts of drawings (groups of glyphs) of each visible figure that are outside the box they are
#: seen through, without scrolling.
_OUTSIDE = """() => Array.from(document.querySelectorAll("figure .plot"), (box) => {
  const seen = box.getBoundingClientRect();
  const cut = (part) => {
    const own = part.getBoundingClientRect();
    return own.width && (own.left < seen.left - 1 || own.right > seen.right + 1);
  };
  const shown = seen.width && box.checkVisibility();
  return shown ? Array.from(box.querySelectorAll("svg g[id*=text], svg text, svg use"))
    .filter(cut).length : -1;
})"""


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_text_of_a_figure_is_cut(report: Path, size: dict[str, int]) -> None:
    with opened(report, size) as visit:
        visit.page.locator("select[data-switch=outcome]").select_option("")
        cut = visit.page.evaluate(_OUTSIDE)
        assert len([count for count in cut if count >= 0]) >= len(nasty_report()[0].figures)
        assert max(cut) == 0
        if size is PHONE:  # readable: as large as on paper, or larger
            height = visit.page.locator("#figure-survival-mace-dl .slim svg").evaluate(
                "svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width"
            )
            assert height >= 1


def test_contents_stay_in_view_and_fold(report: Path) -> None:
    with opened(report) as visit:
        page = visit.page
        page.locator("#table-2").scroll_into_view_if_needed()
        contents = page.locator("nav.contents")
        assert -1 <= contents.bounding_box()["y"] <= 1
        before = page.locator("main").bounding_box()["width"]
        contents.locator("summary").click()
        assert not contents.locator("a").last.is_visible()
        assert page.locator("main").bounding_box()["width"] > before


def test_on_a_phone_nothing_covers_a_heading(report: Path) -> None:
    with opened(report, PHONE) as visit:
        page = visit.page
        contents = page.locator("nav.contents")
        for name in ("table-2", "flow", "sensitivity"):
            contents.locator("summary").click()
            contents.locator(f"a[href='#{name}']").click()
            page.wait_for_timeout(150)
            bar, title = contents.bounding_box(), page.locator(f"#{name} h2").bounding_box()
            assert bar["y"] + bar["height"] <= title["y"] < PHONE["height"]


def test_dark_pages_have_dark_paper_and_readable_drawings(report: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    drawing = "getComputedStyle(document.querySelector('.plot svg')).filter"
    with opened(report, DESKTOP, "dark") as visit:
        red = int(visit.page.evaluate(paper).split("(")[1].split(",")[0])
        assert red < 40
        assert "invert" in visit.page.evaluate(drawing)
        visit.page.emulate_media(media="print")
        assert visit.page.evaluate(paper) == "rgb(255, 255, 255)"
        assert visit.page.evaluate(drawing) == "none"


@pytest.mark.slow
def test_figures_and_tables_lead_to_their_files(report: Path) -> None:
    files = nasty_report()[1].files
    with opened(report) as visit:
        links = visit.page.locator(".files a")
        led = {str(link.get_attribute("href")) for link in links.all()}
        assert led <= set(files)
        assert {name for name in files if name.startswith(("figures/", "tables/"))} - led <= {
            "tables/estimates.csv",
            "tables/estimates.parquet",
        }
