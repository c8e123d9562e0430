"""Photographs pages: `study.png` from a demo, `archive.png` from rows made up at random.

cac demo --out demo && python docs/pictures/pages.py demo/warehouse
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from cac_core.cohort.store import Warehouse
from flows.archive_page import write_archive_page
from flows.study_pages import write_pages
from schemas.score import SCORES
from tests.browser import opened
from tests.builders.archives import warehouse_of_nights


def main(warehouse: Path) -> None:
    """Write both pictures beside this file; the study is the one with most calcium."""
    store = Warehouse(warehouse)
    scores = store.read(SCORES).to_pylist()
    study = max(scores, key=lambda row: row["agatston"] or 0.0)["study_key"]
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive.html"
        write_archive_page(warehouse_of_nights(Path(folder) / "warehouse", 40), archive)
        page = write_pages(store, [study], Path(folder))[study]
        for name, path in (("archive", archive), ("study", page)):
            _photograph(path, Path(__file__).with_name(f"{name}.png"))


def _photograph(page: Path, picture: Path) -> None:
    with opened(page, {"width": 1200, "height": 900}) as visit:
        visit.page.screenshot(path=str(picture), full_page=True)
    with Image.open(picture) as image:
        image.convert("RGB").quantize(192).save(picture, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
