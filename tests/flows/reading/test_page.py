"""The page in a browser: open, scroll, correct, sign, second reader, adjudication, report."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.reading.readings import read_readings
from tests.browser import DESKTOP, PHONE, serious_faults, started
from tests.flows.conftest import Scored
from tests.flows.reading.served import Served, served
from tests.flows.reading.test_server import doubtful

pytest.importorskip("highdicom", reason="the extra `pacs` is not installed")
pytestmark = pytest.mark.slow
#: The first lesion of the list that the model calls coronary.
CORONARY = "#lesions tr:has-text('coronary') button >> nth=0"
TABLET = {"width": 820, "height": 1180}


@contextmanager
def reader(browser: Any, server: Served, name: str, size: dict[str, int]) -> Iterator[Any]:
    """A page of a reader of its own, which must neither complain nor ask elsewhere."""
    context = browser.new_context(viewport=size)
    page, console, asked = context.new_page(), [], []
    page.on("pageerror", lambda error: console.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.link)
    page.fill("#reader", name)
    page.click("#enter-form button")
    page.wait_for_selector("body[data-ready]")
    assert "token" not in page.url
    yield page
    assert console == []
    mine = f"http://{server.host}/"
    assert [url for url in asked if not url.startswith((mine, "data:"))] == []
    assert not any(server.token in url for url in asked if "#" not in url)
    context.close()


def opened(page: Any, study: str) -> None:
    page.click(f'button[data-study="{study}"]')
    page.wait_for_selector(f'#viewer[data-ready="{study}"]', timeout=120_000)


def total(page: Any) -> float:
    return float(page.inner_text("#score .total"))


def corrected(page: Any, number: int, act: Any) -> None:
    act()
    page.wait_for_selector(f'#score[data-corrections="{number}"]')


def sign(page: Any, cause: str = "") -> None:
    page.select_option("#cause", cause)
    page.fill("#reason", "looked at every slice")
    with page.expect_response(lambda answer: answer.request.method == "POST"
                              and answer.url.endswith("/readings")) as answer:  # fmt: skip
        page.click("#sign button.primary")
    assert answer.value.status == 200


def assert_fits(page: Any, size: dict[str, int]) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert serious_faults(page) == []


def test_from_the_work_list_to_the_adjudication(
    scored: Scored, tmp_path: Path, environment: dict[str, str]
) -> None:
    warehouse = tmp_path / "wh"
    shutil.copytree(scored.warehouse, warehouse)
    study, score = doubtful(warehouse)
    with served(scored.archive, warehouse, environment) as server, started() as browser:
        with reader(browser, server, "Ann", DESKTOP) as page:
            assert_fits(page, DESKTOP)
            opened(page, study)
            assert total(page) == round(score, 1)
            before = page.get_attribute("#image", "data-drawn")
            page.focus("#image")
            page.keyboard.press("ArrowUp")
            page.wait_for_function(
                "before => document.querySelector('#image').dataset.drawn !== before", arg=before
            )
            page.click(CORONARY)
            corrected(page, 1, lambda: page.keyboard.press("2"))
            assert total(page) == round(score, 1)
            assert "LAD" in page.inner_text("#lesions")
            corrected(page, 2, lambda: page.keyboard.press("x"))
            assert total(page) < score
            corrected(page, 1, lambda: page.keyboard.press("z"))
            assert total(page) == round(score, 1)
            assert_fits(page, DESKTOP)
            sign(page)
        with reader(browser, server, "Ben", TABLET) as page:
            opened(page, study)
            assert "Ann" not in page.inner_text("#viewer")
            number = 0
            while total(page) >= 1:
                number += 2
                page.click(CORONARY)
                corrected(page, number - 1, lambda: page.keyboard.press("6"))
                corrected(page, number, lambda: page.keyboard.press("x"))
            assert_fits(page, TABLET)
            sign(page, "valve")
        with reader(browser, server, "Eve", PHONE) as page:
            assert_fits(page, PHONE)
            opened(page, study)
            shown = page.inner_text("#compare")
            assert "Reader Ann" in shown and "Reader Ben" in shown
            page.click("#compare button:has-text('Begin from it') >> nth=0")
            page.wait_for_selector("#lesions td:has-text('LAD')")
            assert_fits(page, PHONE)
            sign(page, "noise")
    final = read_readings(Warehouse(warehouse)).final()[study]
    assert (final["kind"], final["reader"], final["cause"]) == ("adjudication", "Eve", "noise")
    assert final["agatston"] == pytest.approx(score) and final["agatston_lad"] > 0
