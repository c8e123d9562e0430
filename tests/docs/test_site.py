"""The generated pages are up to date, and the site builds with every link and works from disk."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import opened

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_page_of_codes_is_that_of_the_codes() -> None:
    make = runpy.run_path(str(REPOSITORY / "docs" / "codes" / "make.py"))
    text = (REPOSITORY / "docs" / "codes.md").read_text(encoding="utf-8")
    assert make["page"]() == text, "run `python docs/codes/make.py`"


@pytest.fixture(scope="module")
def site() -> Path:
    command = [sys.executable, REPOSITORY / "docs" / "site" / "make.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return REPOSITORY / "build" / "site"


@pytest.mark.slow
def test_every_document_and_package_has_a_page(site: Path) -> None:
    for document in (REPOSITORY / "docs").glob("*.md"):
        assert (site / "docs" / f"{document.stem}.html").exists()
    for package in ("cac_core", "flows", "schemas", "tasks"):
        for init in (REPOSITORY / package).rglob("__init__.py"):
            name = ".".join(init.parent.relative_to(REPOSITORY).parts)
            assert (site / "api" / f"{name}.html").exists()
    page = (site / "api" / "cac_core.stats.html").read_text(encoding="utf-8")
    assert "weighted_kappa" in page


@pytest.mark.slow
def test_search_works_from_disk_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    with opened(site / "docs" / "codes.html") as visit:
        page = visit.page
        page.wait_for_timeout(1000)
        page.keyboard.press("Control+k")
        page.wait_for_timeout(500)
        page.keyboard.type("thick_slices")
        found = page.get_by_text("Slice increment above 5 mm.", exact=False)
        found.nth(1).wait_for(timeout=60_000)
        foreign = [url for url in visit.requests if not url.startswith(("file:", "data:", "blob:"))]
        assert not foreign
        assert not visit.console


@pytest.mark.slow
def test_links_of_the_site_lead_somewhere(site: Path) -> None:
    """Also those in HTML, which the builder does not check."""
    for page in set(site.rglob("*.html")) - {site / "404.html"}:  # of servers, not of a folder
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"<(?:a|img|script|link)[^>]+(?:href|src)=\"([^\"#?]+)", text):
            if not target.startswith(("http:", "https:", "mailto:", "data:")):
                assert (page.parent / target).exists(), f"{page}: {target}"
