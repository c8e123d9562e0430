"""Advice about dates that no format reads."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cac_core.cohort.date_advice import date_advice


@pytest.mark.parametrize(
    ("shapes", "dates", "said", "not_said"),
    [
        (["99/99/9999"], ["%d/%m/%Y"], "no such day exists", "add"),
        (["99/99/9999"], ["%d/%m/%Y %z"], "no such day exists", "add"),
        (["9.9.9999"], ["%d.%m.%Y"], "no such day exists", "add"),
        (["9999-99-99"], ["%d.%m.%Y"], "no such day exists", "add"),  # ISO is always accepted
        (["99AAA9999"], ["%d%b%Y"], "or a month in another language", "add"),
        (["99.99.9999"], ["%m/%d/%Y"], 'add "%d.%m.%Y"', "incomplete"),
        (["99/99/9999"], ["%d.%m.%Y"], 'add "%d/%m/%Y" or "%m/%d/%Y", if these are', "incomplete"),
        (["99AA"], ["%d%b%Y"], "99AA: incomplete", "add"),
        (["99.99"], ["%d.%m.%Y"], "99.99: incomplete", "add"),
        (["AAAAAAA"], ["%d.%m.%Y"], "list a placeholder in `missing`", "no such day"),
        (["99AA"], None, "incomplete", "add"),
        (["99/99/9999"], None, "unless it is there: then no such day exists", "incomplete"),
    ],
)
def test_the_advice_fits_value_and_mapping(
    shapes: Sequence[str], dates: Sequence[str] | None, said: str, not_said: str
) -> None:
    advice = date_advice(shapes, dates)
    assert said in advice and not_said not in advice.split()


def test_every_kind_of_value_gets_its_advice() -> None:
    advice = date_advice(["99/99/9999", "99AA", "99.99.9999", "A"], ["%d/%m/%Y", "%d%b%Y"])
    for said in ("no such day exists for 99/99/9999", "99AA: incomplete", '"%d.%m.%Y"', "add the"):
        assert said in advice
