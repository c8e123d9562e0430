"""A table that violates its schema is refused, with every failed column and no value."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from schemas.registry import CLINICAL
from schemas.score import SCORES
from schemas.table import ColumnSpec, InvalidTableError, TableSpec
from tests.builders.rows import key, score_row

SMALL = TableSpec(
    "small",
    "A table for tests.",
    (
        ColumnSpec("name", pa.string(), "a name", pattern="^[a-z]+$", unique=True),
        ColumnSpec("share", pa.float64(), "a share", unit="1", nullable=True, ge=0, le=1),
        ColumnSpec("kind", pa.string(), "a kind", codes=("a", "b")),
        ColumnSpec("at", pa.timestamp("us", tz="UTC"), "an instant", nullable=True),
    ),
    unique_together=("name", "kind"),
)
GOOD = {"name": "x", "share": 0.5, "kind": "a", "at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC)}


def test_metadata_of_every_field() -> None:
    table = SMALL.from_rows([GOOD])
    field = table.schema.field("share")
    assert field.metadata == {b"description": b"a share", b"unit": b"1"}
    assert table.schema.metadata[b"table"] == b"small"


@pytest.mark.parametrize("wrong", [pa.array([1.5]), pa.array(["x"]).dictionary_encode()])
def test_a_column_of_another_type_is_named(wrong: pa.Array) -> None:
    table = SMALL.from_rows([GOOD]).set_column(0, "name", wrong)
    with pytest.raises(InvalidTableError, match=r"name: has the type .*, not string"):
        SMALL.validate(table)
    with pytest.raises(InvalidTableError, match="name: has the type"):
        SMALL.failures(table)


def test_a_missing_key_is_null() -> None:
    assert SMALL.from_rows([{"name": "x", "kind": "b"}])["share"].to_pylist() == [None]


def test_tables_of_earlier_versions_are_migrated_and_of_later_ones_refused() -> None:
    first = TableSpec("grades", "Grades.", (ColumnSpec("mark", pa.int64(), "a grade"),))

    def renamed(table: pa.Table) -> pa.Table:
        return table.rename_columns(["grade"])

    def scaled(table: pa.Table) -> pa.Table:
        return pa.table({"grade": [10 * value for value in table["grade"].to_pylist()]})

    third = TableSpec(
        "grades",
        "Grades.",
        (
            ColumnSpec("grade", pa.int64(), "a grade", ge=0),
            ColumnSpec("note", pa.string(), "a remark", nullable=True),
        ),
        migrations=(renamed, scaled),
    )
    assert (first.version, third.version) == (1, 3)
    old = first.from_rows([{"mark": 2}])
    expected = [{"grade": 20, "note": None}]
    assert third.validate(third.completed(old)).to_pylist() == expected
    unmarked = old.replace_schema_metadata(None)  # from before versions were written
    assert third.completed(unmarked).to_pylist() == expected
    new = third.from_rows([{"grade": 7}])
    assert third.completed(new).to_pylist() == [{"grade": 7, "note": None}]
    with pytest.raises(InvalidTableError, match="version 3, and this program reads up to 1"):
        first.completed(new)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": "X"}, "name: str_matches"),
        ({"name": None}, "name: not_nullable"),
        ({"share": 1.5}, "share: less_than_or_equal_to"),
        ({"share": -0.5}, "share: greater_than_or_equal_to"),
        ({"kind": "c"}, "kind: isin"),
    ],
)
def test_each_check(change: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidTableError, match=named.replace("(", r"\(")) as caught:
        SMALL.from_rows([GOOD | change])
    assert caught.value.table == "small"


def test_all_failures_at_once_and_no_value() -> None:
    rows = [GOOD | {"name": "Meier", "kind": "q"}, GOOD | {"name": "Mueller", "share": 7.0}]
    with pytest.raises(InvalidTableError) as caught:
        SMALL.from_rows(rows)
    text = str(caught.value)
    assert all(column in text for column in ("name", "kind", "share"))
    assert "(2)" in text
    assert not any(value in text for value in ("Meier", "Mueller", "7"))


def test_duplicates() -> None:
    with pytest.raises(InvalidTableError, match="unique"):
        SMALL.from_rows([GOOD, GOOD])


def test_wrong_columns() -> None:
    with pytest.raises(InvalidTableError, match="unknown columns colour"):
        SMALL.from_rows([GOOD | {"colour": "red"}])
    with pytest.raises(InvalidTableError, match="missing columns kind"):
        SMALL.validate(SMALL.from_rows([GOOD]).drop_columns(["kind"]))
    with pytest.raises(InvalidTableError, match="missing columns kind"):
        SMALL.validate(SMALL.empty().drop_columns(["kind"]))
    with pytest.raises(InvalidTableError, match="while typing rows"):
        SMALL.from_rows([GOOD | {"share": "half"}])


def test_empty_is_valid() -> None:
    assert SMALL.validate(SMALL.empty()).num_rows == 0
    assert SMALL.from_rows([]).schema == SMALL.arrow_schema


def test_scores_of_every_status() -> None:
    rejected = {
        name: value
        for name, value in score_row(2).items()
        if name
        in {
            "study_key",
            "patient_key",
            "instances_digest",
            "model_digest",
            "protocol_digest",
            "core_version",
            "run_id",
            "scored_at",
            "quality_flags",
        }
    } | {"status": "rejected", "reason": "no_heart"}
    assert SCORES.from_rows([score_row(1), rejected]).num_rows == 2


@pytest.mark.parametrize(
    "change",
    [
        {"agatston": -1.0},
        {"agatston": float("nan")},
        {"status": "done"},
        {"reason": "because"},
        {"cac_category": "101-399"},
        {"study_key": key(1).upper()},
        {"study_key": "12345678"},
    ],
)
def test_scores_refuse(change: dict[str, object]) -> None:
    with pytest.raises(InvalidTableError):
        SCORES.from_rows([score_row(1, **change)])


def test_failures_names_row_column_and_check_of_each_bad_value() -> None:
    rows = [
        {"patient_id": "a", "study_date": dt.date(2015, 1, 1), "age_years": 160.0},
        {"patient_id": None, "study_date": dt.date(2015, 1, 1), "age_years": 60.0},
        {"patient_id": "c", "study_date": dt.date(2015, 1, 1), "sex": "Q"},
        {"patient_id": "d", "study_date": dt.date(2015, 1, 1), "age_years": 160.0},
    ]
    schema = pa.schema([f.with_nullable(True) for f in CLINICAL.arrow_schema])
    found = CLINICAL.failures(pa.Table.from_pylist(rows, schema))
    assert sorted((row, column) for row, column, _ in found) == [
        (0, "age_years"),
        (1, "patient_id"),
        (2, "sex"),
        (3, "age_years"),
    ]
    assert {check for row, _, check in found if row == 1} == {"not_nullable"}
