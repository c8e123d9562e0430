"""Checklists: whole, no item twice, and every answer leads to a place on the page."""

from __future__ import annotations

import re

import pytest

from cac_core.report.cohort.checklists import NAMES, OPEN, load_checklist
from tests.builders.reports import nasty_report

#: Items by number, counted in the publications: PRIME by sections, TRIPOD+AI and CLAIM through.
PRIME = {"1": 5, "2": 6, "3": 6, "4": 2, "5": 4, "6": 3, "7": 2}
WHOLE = {"tripod_ai": 27, "claim": 44}


@pytest.mark.parametrize("name", NAMES)
def test_every_item_is_there_once(name: str) -> None:
    numbers = [item.number for item in load_checklist(name).items]
    assert len(set(numbers)) == len(numbers)
    if name == "prime":
        assert numbers == [f"{part}.{n}" for part in PRIME for n in range(1, PRIME[part] + 1)]
    else:
        plain = [int(re.sub(r"[a-z]$", "", number)) for number in numbers]
        assert list(dict.fromkeys(plain)) == list(range(1, WHOLE[name] + 1))


@pytest.mark.parametrize("name", NAMES)
def test_an_item_has_a_place_or_is_left_to_the_investigator(name: str) -> None:
    items = load_checklist(name).items
    assert all(item.text and (item.section is None) == (item.answer == OPEN) for item in items)
    assert any(item.section is None for item in items)


def test_every_answer_leads_to_a_section_of_the_page() -> None:
    page = nasty_report()[1].files["index.html"].decode()
    sections = set(re.findall(r'<section id="([^"]+)"', page))
    for name in NAMES:
        answered = {item.section for item in load_checklist(name).items if item.section}
        assert answered <= sections
        assert all(f'href="#{one}"' in page for one in answered)


def test_an_answer_says_where_its_section_has_gaps() -> None:
    report, done = nasty_report()
    page = done.files["index.html"].decode()
    incomplete = set(report.incomplete)
    assert "table-2" in incomplete and "table-1" not in incomplete
    for name in NAMES:
        for item in load_checklist(name).items:
            if item.section is None:
                continue
            shown = f"{item.answer}; in part, see the gaps of the section"
            assert (shown in page) == (item.section in incomplete), (item.number, item.section)
