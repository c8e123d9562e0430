"""Pages in a real browser: Chromium of this machine, driven by Playwright, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@dataclass
class Visit:
    """A page that was opened from disk, and what it did that it should not."""

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def started(*options: str) -> Iterator[Any]:
    """Chromium; skips the test where there is no browser or no driver."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on this machine: the page was not opened in a browser")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", *options]
        browser = driver.chromium.launch(executable_path=found, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(path: Path, size: dict[str, int] = DESKTOP, scheme: str = "light") -> Iterator[Visit]:
    """Open a file, light or dark; skips the test where there is no browser or no driver."""
    with started() as browser:
        page = browser.new_page(viewport=size, color_scheme=scheme)
        visit = Visit(page)
        page.on("console", lambda message: visit.console.append(message.text))
        page.on("pageerror", lambda error: visit.console.append(str(error)))
        page.on("request", lambda request: visit.requests.append(request.url))
        page.goto(path.as_uri())
        yield visit


def serious_faults(page: Any) -> list[str]:
    """Faults of accessibility that axe calls serious or critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe").Axe()
    return [
        f"{fault['id']}: {node['html'][:120]}"
        for fault in axe.run(page).response["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


def assert_sound(path: Path, size: dict[str, int], scheme: str = "light") -> None:
    """The page opens from disk, asks for nothing, fits the screen, and axe finds no fault."""
    with opened(path, size, scheme) as visit:
        assert visit.console == []
        assert [url for url in visit.requests if not url.startswith("data:")] == [path.as_uri()]
        width = visit.page.evaluate("document.documentElement.scrollWidth")
        assert width <= size["width"], "the page itself scrolls sideways"
        visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert serious_faults(visit.page) == []
