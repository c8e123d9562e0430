"""A part of a canonical table is read under its own path, whatever signs are in it."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cac_core.cohort.link import _readable


@pytest.mark.parametrize("name", ["s [2020]", "wh*?", "[2020] x\\y", "*\\[x]'", "model=1\\?"])
def test_signs_of_patterns_and_backslashes(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    pq.write_table(pa.table({"a": [7]}), folder / "part.parquet")
    with duckdb.connect() as connection:
        source = _readable(connection, 0, folder / "part.parquet")
        assert connection.sql(f"SELECT * FROM {source}").fetchall() == [(7,)]
        assert connection.sql(f"SELECT * FROM {source}").columns == ["a"]
