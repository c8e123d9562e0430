"""Latencies of `cac review`: work list, pixels, corrections, and drawing without a GPU.

    python -m bench.bench_review [--rows 100000] [--archive DIR --warehouse DIR]

The work list is of invented scores. With an archive and its warehouse (and the secret in the
environment), a server is started and a study of it opened in Chromium: first slice, all slices, a
correction, and one drawing of the canvas, measured in the page.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa

from bench.measure import record
from cac_core.cohort.warehouse import Warehouse
from cac_core.protocol import ScoringProtocol
from cac_core.reading.masks import ReadingMasks
from cac_core.reading.readings import ReadingLog
from cac_core.reading.work_list import Wanted, WorkList
from cac_core.scoring.sites import SITE_NUMBERS
from schemas.codes import CAC_CATEGORIES, CalciumSite
from schemas.score import CATEGORY_CHANCES, SCORES
from tests.browser import started
from tests.builders.rows import key, score_row
from tests.flows.reading.served import served


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--archive", type=Path)
    parser.add_argument("--warehouse", type=Path)
    given = parser.parse_args()
    found = work_list(given.rows) | corrections()
    if given.archive and given.warehouse:
        found |= in_browser(given.archive, given.warehouse)
    found["load"] = os.getloadavg()[0]
    print(json.dumps(found, indent=2))
    record("review", [], found)


def work_list(rows: int) -> dict[str, float]:
    """Seconds until the first page of a list is known, and until a filtered one is."""
    with tempfile.TemporaryDirectory() as folder:
        store = Warehouse(Path(folder) / "wh")
        store.replace(SCORES, scores(rows), "m")
        begun = perf_counter()
        log = ReadingLog(store)
        made = WorkList.read(store, "m", None, log.readings)
        made.facets()
        made.page(Wanted(), "A")
        opened = perf_counter() - begun
        begun = perf_counter()
        made.page(Wanted(category=">400", needs_review=True, order="score"), "A")
        return {"list_opened_s": opened, "list_filtered_s": perf_counter() - begun}


def scores(rows: int) -> pa.Table:
    """Invented scores with chances of categories."""
    rng = np.random.default_rng(1)
    chances = rng.dirichlet([0.3] * 4, rows)
    base = SCORES.from_rows([score_row(1)]).take(np.zeros(rows, int))
    category = [CAC_CATEGORIES[n] for n in chances.argmax(axis=1)]
    columns = {
        "study_key": [key(n) for n in range(rows)],
        "cac_category": category,
        "needs_review": (chances.max(axis=1) < 0.8).tolist(),
        **dict(zip(CATEGORY_CHANCES, chances.T.tolist(), strict=True)),
    }
    for name, values in columns.items():
        at = base.schema.get_field_index(name)
        base = base.set_column(at, base.schema.field(at), pa.array(values))
    return base


def corrections() -> dict[str, float]:
    """Median seconds of a correction with its score, 60 slices of 512 x 512, 300 lesions."""
    rng = np.random.default_rng(2)
    hu = rng.normal(40, 20, (60, 512, 512)).astype(np.int16)
    heart = np.zeros(hu.shape, bool)
    heart[10:50, 150:350, 150:350] = True
    sites = np.zeros(hu.shape, np.uint8)
    places = [tuple(rng.integers((12, 160, 160), (48, 340, 340))) for _ in range(300)]
    for k, row, column in places:
        hu[k, row : row + 4, column : column + 4] = 400
        sites[k, row : row + 4, column : column + 4] = SITE_NUMBERS[CalciumSite.CORONARY]
    masks = ReadingMasks(hu, heart, sites, (3.0, 0.7, 0.7), ScoringProtocol(), 130.0)
    times = []
    for k, row, column in places[:40]:
        begun = perf_counter()
        place = {"slice": int(k), "row": int(row), "column": int(column)}
        masks.correct({"do": "assign", **place, "site": "lad", "extent": "slice"})
        masks.score()
        times.append(perf_counter() - begun)
        masks.undo()
    return {"correction_s": statistics.median(times), "correction_slowest_s": max(times)}


def in_browser(archive: Path, warehouse: Path) -> dict[str, float]:
    """Milliseconds as the page sees them.

    Of a study opened at once after the start, of the next one, which was read ahead, and of one
    that nobody has opened.
    """
    with served(archive, warehouse, dict(os.environ)) as server, started() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(server.link)
        page.fill("#reader", "Bench")
        page.click("#enter-form button")
        page.wait_for_selector("#studies tbody button")
        page.click("#studies tbody button")
        page.wait_for_selector("#viewer[data-ready]", timeout=120_000)
        first = page.evaluate("({...review.study.timing})")
        page.wait_for_timeout(3000)  # the next study is prefetched meanwhile
        shown = page.get_attribute("#viewer", "data-ready")
        page.keyboard.press("Shift+N")
        page.wait_for_selector(f'#viewer[data-ready]:not([data-ready="{shown}"])', timeout=120_000)
        page.wait_for_timeout(500)
        found = page.evaluate("({...review.study.timing, shape: review.study.info.shape})")
        draws = page.evaluate(
            "[...Array(30)].map((_, n) => { const s = review.stage; s.slice = n % s.scan.count;"
            " s.render(); return s.timing.draw; })"
        )
        page.keyboard.press("Escape")
        page.click("#studies tbody button >> nth=-1")
        page.wait_for_selector("#viewer[data-ready]", timeout=120_000)
        page.wait_for_timeout(2000)
        unread = page.evaluate("({...review.study.timing, shape: review.study.info.shape})")
    return {
        "after_start_first_slice_ms": first["first"],
        "after_start_all_slices_ms": first["all"],
        "read_ahead_first_slice_ms": found["first"],
        "read_ahead_all_slices_ms": found["all"],
        "unread_first_slice_ms": unread["first"],
        "unread_all_slices_ms": unread["all"],
        "read_ahead_slices": found["shape"][0],
        "unread_slices": unread["shape"][0],
        "draw_ms": statistics.median(draws),
    }


if __name__ == "__main__":
    main()
