"""Acquisition, causes of discrepant cases, and what the networks learnt from: worked by hand."""

from __future__ import annotations

import pyarrow as pa

from cac_core.analysis.archive_estimates import acquisition, discrepancy_causes, training
from schemas.score import SCORES
from tests.builders.rows import key, score_row


def scores(*changes: dict[str, object]) -> pa.Table:
    rows = [score_row(number, **change) for number, change in enumerate(changes)]
    return SCORES.from_rows(rows)


def differing(*cases: tuple[int, str, str]) -> pa.Table:
    """Cases: study number, category of the model, category of the reader."""
    return pa.Table.from_pylist(
        [
            {
                "study_key": key(number),
                "compared": "model",
                "reference": "reader",
                "compared_category": ours,
                "reference_category": theirs,
            }
            for number, ours, theirs in cases
        ]
    )


def counts(rows: list) -> dict[tuple[str | None, str | None], float]:
    return {(row.term, row.level): row.value for row in rows}


def test_kinds_of_discrepancy_and_their_candidates() -> None:
    table = scores(
        {"noise_hu": 10.0},
        {"noise_hu": 20.0, "agatston_noncoronary": 55.0},
        {"noise_hu": 30.0, "quality_flags": "metal;truncated"},
        {"noise_hu": 40.0, "agatston_noncoronary": 0.9},
    )
    cases = differing(
        (0, "0", "1-100"), (1, "1-100", "0"), (2, ">400", "101-400"), (3, "0", ">400")
    )
    found = counts(discrepancy_causes(cases, table))
    # The upper quartile of 10, 20, 30, 40 is 32.5: the fourth alone is above it.
    assert found == {
        ("absent_present", None): 2,
        ("absent_present", "noise in the highest quarter"): 1,
        ("present_absent", None): 1,
        ("present_absent", "calcium outside the coronaries"): 1,
        ("apart", None): 1,
        ("apart", "flag: metal"): 1,
        ("apart", "flag: truncated"): 1,
    }


def test_noise_that_all_share_explains_nothing() -> None:
    table = scores(*[{"noise_hu": 22.0}] * 5)
    found = discrepancy_causes(differing((0, "0", "1-100"), (4, "1-100", "0")), table)
    assert {row.level for row in found} == {None}


def test_noise_that_nobody_measured_explains_nothing() -> None:
    table = pa.table(
        {
            **scores({}, {}).drop_columns("noise_hu").to_pydict(),
            "noise_hu": pa.nulls(2, pa.float64()),
        }
    )
    assert {row.level for row in discrepancy_causes(differing((0, "0", "1-100")), table)} == {None}


def test_a_review_counts_beside_the_candidates() -> None:
    reviews = pa.table({"study_key": [key(0), key(0)], "cause": ["stent", "motion"]})
    found = discrepancy_causes(differing((0, "0", "1-100")), scores({}, {}), reviews)
    assert counts(found) == {
        ("absent_present", None): 1,
        ("absent_present", "reviewed: stent"): 1,
        ("absent_present", "reviewed: motion"): 1,
    }
    assert {row.method for row in found if row.level} == {"found by a person"}


def test_quartiles_of_the_archive_and_of_those_in_the_analysis() -> None:
    table = scores(*[{"noise_hu": value} for value in (10.0, 20.0, 30.0, 40.0, 90.0)])
    rows = acquisition(table, [key(0), key(1), key(2)])
    noise = {
        (row.population, row.statistic): row.value
        for row in rows
        if row.term == "noise_hu" and row.model is None
    }
    assert noise == {
        ("archive", "q1"): 20,
        ("archive", "median"): 30,
        ("archive", "q3"): 40,
        ("all", "q1"): 15,
        ("all", "median"): 20,
        ("all", "q3"): 25,
    }


def test_training_is_reported_as_far_as_the_manifest_records_it() -> None:
    manifest = {"heart": {"training_samples": 480, "validation_samples": 60}, "calcium": "by hand"}
    rows = training(manifest)
    assert [(row.model, row.term, row.value) for row in rows] == [
        ("heart", "training_samples", 480.0),
        ("heart", "validation_samples", 60.0),
    ]
