"""Photographs pages: a study of a demo, an archive of rows made up at random, a cohort report.

cac demo --out demo && cac demo --full --out full
python -m docs.pictures.pages demo/warehouse full/warehouse/reports/cohort

The second folder is that of a cohort report, here of a registry of 2271 patients.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from cac_core.cohort.warehouse import Warehouse
from flows.pages.archive import write_archive_page
from flows.pages.studies import write_pages
from schemas.score import SCORES
from tests.browser import opened
from tests.builders.archives import warehouse_of_nights

#: Parts of the cohort report that are shown: file, heading it begins at, height in pixels.
REPORT_PARTS = (("report-population", "flow", 2300), ("report-survival", "figure-4", 1500))


def main(warehouse: Path, report: Path) -> None:
    """Write the pictures beside this file; the study is the one with most calcium."""
    store = Warehouse(warehouse)
    scores = store.read(SCORES).to_pylist()
    study = max(scores, key=lambda row: row["agatston"] or 0.0)["study_key"]
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive.html"
        write_archive_page(warehouse_of_nights(Path(folder) / "warehouse", 40), archive)
        page = write_pages(store, [study], Path(folder))[study]
        for name, path in (("archive", archive), ("study", page)):
            _photograph(path, Path(__file__).with_name(f"{name}.png"))
    for name, section, height in REPORT_PARTS:
        _photograph(report / "index.html", Path(__file__).with_name(f"{name}.png"), section, height)


def _photograph(page: Path, picture: Path, section: str = "", height: int = 0) -> None:
    """A page, or as much of it from a section on."""
    with opened(page, {"width": 1280, "height": 900}) as visit:
        clip = None
        if section:
            place = visit.page.locator(f"#{section}").bounding_box()
            assert place is not None, section
            clip = {"x": 0, "y": place["y"], "width": 1280, "height": height}
        visit.page.screenshot(path=str(picture), full_page=True, clip=clip)
    with Image.open(picture) as image:
        image.convert("RGB").quantize(192).save(picture, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
