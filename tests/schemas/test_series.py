"""The tables `instances` and `series` as contracts."""

from __future__ import annotations

import pytest

from schemas.instance import INSTANCES
from schemas.series import SERIES
from schemas.table import InvalidTableError, TableSpec

KEY = "0123456789abcdef" * 2
INSTANCE = {"path_key": KEY, "size_bytes": 10, "mtime_ns": 1}
ROW = {
    "study_key": KEY,
    "SeriesInstanceUID": "2.25.1234",
    **dict.fromkeys(("n_files", "n_slices", "n_truncated", "n_unusable"), 1),
    "has_contrast_agent": False,
    "has_gating": False,
    "instances_digest": KEY * 2,
    "selected": False,
    "reason": "localizer",
    "evidence": "",
}


def test_rows_pass() -> None:
    assert INSTANCES.from_rows([INSTANCE]).num_rows == 1
    assert SERIES.from_rows([ROW]).num_rows == 1


@pytest.mark.parametrize(
    ("table", "row"),
    [
        (INSTANCES, INSTANCE | {"path_key": "/archive/Muster^Erika"}),
        (INSTANCES, INSTANCE | {"SOPInstanceUID": "1.2.840.113619.2.55"}),
        (INSTANCES, INSTANCE | {"reason": "dull"}),
        (INSTANCES, INSTANCE | {"size_bytes": -1}),
        (SERIES, ROW | {"SeriesInstanceUID": "1.3.12.2.1107"}),
        (SERIES, ROW | {"study_key": "1.2.3"}),
        (SERIES, ROW | {"reason": "because"}),
        (SERIES, ROW | {"selected": None}),
        (SERIES, ROW | {"ctac_role": "both"}),
    ],
)
def test_bad_values_are_refused(table: TableSpec, row: dict[str, object]) -> None:
    with pytest.raises(InvalidTableError):
        table.from_rows([row])


def test_the_same_series_twice_is_refused() -> None:
    with pytest.raises(InvalidTableError):
        SERIES.from_rows([ROW, ROW])


@pytest.mark.parametrize("table", [INSTANCES, SERIES])
def test_every_column_is_described(table: TableSpec) -> None:
    names = [column.name for column in table.columns]
    assert len({name.casefold() for name in names}) == len(names)
    assert all(column.description for column in table.columns)
    assert all(column.unit for column in table.columns if column.name.endswith("_mm"))
