"""Names of columns, readings and outcomes in texts, as the report shows them."""

from __future__ import annotations

import pytest

from cac_core.report.cohort.plain_words import in_plain_words, shown_names
from tests.builders.analyses import plan

NAMES = shown_names(plan(), {"mace": "MACE", "death_mi": "death or MI", "death": "death"})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("column `bmi_kg_m2` is missing in all 9 patients", "BMI is missing in all 9 patients"),
        ("there is no column `bmi_kg_m2`", "BMI is not in the cohort"),
        ("3 missing times in `mace_days`", "3 missing times in days to MACE"),
        ("the outcome `death` is not linked", "the outcome death is not linked"),
        ("mace, without early events", "MACE, without early events"),
        ("collinear with age_years", "collinear with Age"),
        ("died before death_mi", "died before death or MI"),
        ("run `cac link`", "run `cac link`"),
        ("macerated", "macerated"),
    ],
)
def test_names_become_labels(text: str, shown: str) -> None:
    assert in_plain_words(text, NAMES) == shown
