"""The page of the archive: pictures with text and tables, what is missing said, the same bytes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from cac_core.cohort.archive import ArchiveState, archive_state
from cac_core.cohort.warehouse import Warehouse
from cac_core.report.archive_page import archive_page
from cac_core.report.figures import drift_figure, nights_figure, scanners_figure
from tests.builders.archives import warehouse_of_nights
from tests.cac_core.report.test_page import Tags


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> ArchiveState:
    return archive_state(warehouse_of_nights(tmp_path_factory.mktemp("nights") / "wh"))


def test_every_section_has_a_picture_or_a_sentence(state: ArchiveState) -> None:
    text = archive_page(state)
    tags = Tags(text)
    assert not tags.open
    sections = [attributes["id"] for tag, attributes in tags.found if tag == "section"]
    assert sections == ["nights", "queue", "reasons", "reviews", "drift", "scanners", "speed"]
    assert [tag for tag, _ in tags.found].count("figure") == 5
    titles = re.findall(r"<title id=\"[^\"]+\">([^<]+)</title>", text)
    assert len(titles) == 5
    assert all(len(title) > 40 for title in titles), "a text alternative says what is seen"
    identifiers = re.findall(r'\bid="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))
    assert text == archive_page(state)
    assert len(text) < 600_000


def test_counts_of_the_page_are_those_of_the_state(state: ArchiveState) -> None:
    text = archive_page(state)
    rows = re.findall(r"<tr><th scope=\"row\">(\d{4}-\d\d-\d\d) 01:30</th>", text)
    assert rows == [f"{row['started_at']:%Y-%m-%d}" for row in reversed(state.runs)]
    for row in state.reasons:
        assert re.search(rf"{row['reason']}</th>.*?>{row['studies']}<", text)
    assert "unknown (more scores of zero, more noise)" in text
    assert f"{state.queued} studies are left" in text
    assert "ACME Hybrid 6" in text
    assert f"The newest month, {state.months[-1]['month']}," in text
    assert re.search(
        r"Of 265 studies that convlstm-old scored too, \d+\.\d % are in the same", text
    )


def test_an_empty_warehouse_gets_a_page_that_says_so(tmp_path: Path) -> None:
    text = archive_page(archive_state(Warehouse(tmp_path / "none")))
    assert text.count('class="missing"') == 5
    assert "Every study that was tried has a score" in text
    assert not Tags(text).open


def test_a_first_night_with_nothing_scored(state: ArchiveState) -> None:
    only = [state.months[-1] | {"rest_n": 0, "rest_zero": 0}]
    text = archive_page(dataclasses.replace(state, months=only))
    assert "is the only month; there is nothing" in text
    bare = dataclasses.replace(
        state, runs=state.runs[:1], months=[], models=[], scanners=[], speed=[]
    )
    text = archive_page(bare)
    assert "No scored study has a date yet" in text
    assert not Tags(text).open


def test_reasons_of_another_version_are_shown_without_meaning(state: ArchiveState) -> None:
    odd = [{"status": "rejected", "reason": "from_the_future", "studies": 3, "last_run": 1}]
    assert "from_the_future" in archive_page(dataclasses.replace(state, reasons=odd))


def test_pictures_show_the_numbers(state: ArchiveState) -> None:
    upper = nights_figure(state.runs).axes[0]
    top = upper.patches[-1].get_data()  # type: ignore[attr-defined]
    assert top.values.tolist() == [r["scored"] + r["rejected"] + r["failed"] for r in state.runs]
    shares = drift_figure(state.months, state.models).axes[0]
    zero, *_, last = (patch.get_data() for patch in shares.patches)  # type: ignore[attr-defined]
    expected = [100 * row["n_zero"] / row["n"] for row in state.months]
    assert zero.values.tolist() == pytest.approx(expected)
    assert last.values.tolist() == pytest.approx([100.0] * len(state.months))
    names = [
        label.get_text() for label in scanners_figure(state.scanners).axes[0].get_yticklabels()
    ]
    assert [name.split("\n")[0] for name in names] == [
        r["scanner"] or "unknown" for r in state.scanners
    ]
