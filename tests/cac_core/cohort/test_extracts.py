"""Extract files: literal names, dates as written, choice of columns."""

from __future__ import annotations

import datetime as dt
import gzip
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cac_core.cohort.canonical import make_part
from cac_core.cohort.database import Resources, database
from cac_core.cohort.extract_parts import PartStore
from cac_core.cohort.extract_rows import check_header, load_rows
from cac_core.cohort.extracts import Extract, find_extracts
from cac_core.cohort.mapping import Source, load_mapping
from cac_core.errors import UsageError
from tests.builders.registries import write_site


def _source(files: str = "x.csv", **options: object) -> Source:
    columns = options.pop("columns", {"patient_id": "id", "death_date": "died"})
    return Source.model_validate(
        {"name": "deaths", "table": "deaths", "files": files, "columns": columns, **options}
    )


def _load(extract: Extract) -> list[tuple[object, ...]]:
    with database(Resources()) as (connection, scratch):
        load_rows(connection, extract, scratch)
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in extract.source.wanted)
        return connection.sql(f"SELECT {names} FROM file_rows ORDER BY line").fetchall()


@pytest.mark.parametrize("name", ["clin[1].csv", "all*.csv", "wh?t.csv", "{a,b}.csv", "a::b.csv"])
def test_only_the_file_with_the_literal_name_is_read(name: str, tmp_path: Path) -> None:
    for other in ("clin1.csv", "all_2.csv", "what.csv", "a.csv", "b.csv"):
        (tmp_path / other).write_text("id,died\nWRONG,2015-01-01\n", encoding="utf-8")
    (tmp_path / name).write_text("id,died\nP1,2015-06-01\n", encoding="utf-8")
    (extract,) = find_extracts(_source(name), tmp_path)
    assert _load(extract) == [("P1", "2015-06-01")]
    (absolute,) = find_extracts(_source(str(tmp_path / name)), Path("/nowhere"))
    assert absolute.path == tmp_path / name


def test_a_pattern_finds_its_files_in_a_folder_with_special_characters(tmp_path: Path) -> None:
    folder = tmp_path / "site [2020] *"
    folder.mkdir()
    for n in (2, 1):
        (folder / f"d_{n}.csv").write_text(f"id,died\nP{n},2015-06-01\n", encoding="utf-8")
    found = find_extracts(_source("site [2020] */d_*.csv"), tmp_path)
    assert [(e.label, e.path.name) for e in found] == [
        ("deaths/1", "d_1.csv"),
        ("deaths/2", "d_2.csv"),
    ]


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_a_folder_name_is_not_a_column(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "id=WRONG" / "died=1999-01-01"
    folder.mkdir(parents=True)
    path = folder / f"d.{kind}"
    text = b"id,died\nP1,2015-06-01\n"
    if kind == "parquet":
        pq.write_table(pa.table({"id": ["P1"], "died": ["2015-06-01"]}), path)
    else:
        path.write_bytes(text if kind == "csv" else gzip.compress(text))
    form = "parquet" if kind == "parquet" else "csv"
    assert _load(Extract(_source(format=form), path, "")) == [("P1", "2015-06-01")]


def test_the_scratch_folder_can_have_any_name(tmp_path: Path) -> None:
    scratch = tmp_path / "s[1] *?" / "id=WRONG"
    scratch.mkdir(parents=True)
    path = tmp_path / "d.csv"
    for text in ("id,died\nP1,2015-06-01\n", "id,died\n\nP1,2015-06-01\n"):
        path.write_text(text, encoding="utf-8")
        with database(Resources(scratch=scratch)) as (connection, folder):
            load_rows(connection, Extract(_source(), path, ""), folder)
            assert connection.sql("SELECT id FROM file_rows").fetchall() == [("P1",)]


def test_whole_numbers_of_a_column_of_floats_are_identifiers(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    table = pa.table({"id": pa.array([10023.0, None, 1.5, float("nan"), 12345678901.0])})
    table = table.append_column("died", pa.array(["2015-06-01"] * 5))
    pq.write_table(table, path)
    rows = _load(Extract(_source(format="parquet"), path, ""))
    assert [row[0] for row in rows] == ["10023", None, "1.5", None, "12345678901"]


@pytest.mark.parametrize("second", ["died", "DIED", " died "])
def test_two_columns_of_one_name_are_refused_until_one_is_named(
    second: str, tmp_path: Path
) -> None:
    path = tmp_path / "d.csv"
    path.write_text(f"id,died,{second}\nP1,2015-06-01,2016-07-02\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"has 2 columns `died` \(columns 2, 3.*`died#2`"):
        check_header(Extract(_source(), path, ""))
    for number, died in ((1, "2015-06-01"), (2, "2016-07-02")):
        columns = {"patient_id": "id", "death_date": f"died#{number}"}
        assert _load(Extract(_source(columns=columns), path, "")) == [("P1", died)]


def _deaths(tmp_path: Path, texts: list[str], **options: object) -> list[dt.date]:
    path = tmp_path / "d.csv"
    lines = [f'P{n},"{text}"' for n, text in enumerate(texts)]
    path.write_text("\n".join(["id,died", *lines]) + "\n", encoding="utf-8")
    site = load_mapping(write_site(tmp_path))
    extract = Extract(_source(**options), path, str(hash(tuple(texts))))
    store = PartStore(tmp_path / "w", tmp_path / "w" / "_staging")
    part = make_part(extract, site, store, Resources())
    dates: list[dt.date] = pq.read_table(part.rows).sort_by("source_line")["death_date"].to_pylist()
    return dates


AMERICAN_AND_EUROPEAN = ["%m/%d/%Y", "%d/%m/%Y"]


def test_the_other_cells_of_a_column_decide_its_format(tmp_path: Path) -> None:
    read = _deaths(tmp_path, ["09/04/2018", "20/12/2018"], dates=AMERICAN_AND_EUROPEAN)
    assert read == [dt.date(2018, 4, 9), dt.date(2018, 12, 20)]


def test_a_third_format_can_decide_between_two(tmp_path: Path) -> None:
    formats = ["%d/%m/%y", "%y/%m/%d", "%m/%d/%y"]
    read = _deaths(tmp_path, ["09/04/18", "08/13/18"], dates=formats)
    assert read == [dt.date(2018, 9, 4), dt.date(2018, 8, 13)]


@pytest.mark.parametrize(
    ("texts", "reported"),
    [
        (["09/09/2018", "09/04/2018"], r"line 3 fits .* no other line decides"),
        (["09/04/2018", "20/12/2018", "12/20/2018"], r"line 4 fits only `%m.*, but line 3 only"),
    ],
)
def test_an_ambiguous_date_column_is_refused(
    texts: list[str], reported: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=reported) as caught:
        _deaths(tmp_path, texts, dates=AMERICAN_AND_EUROPEAN)
    assert "2018" not in str(caught.value)  # lines and formats, no dates of patients


def test_formats_that_never_disagree_are_allowed_together(tmp_path: Path) -> None:
    texts = ["20180409", "09.04.2018", "2018-04-09", "09.04.18"]
    read = _deaths(tmp_path, texts, dates=["%Y%m%d", "%d.%m.%Y", "%d.%m.%y"])
    assert read == [dt.date(2018, 4, 9)] * 4


def test_a_format_that_contradicts_iso_dates_replaces_them(tmp_path: Path) -> None:
    assert _deaths(tmp_path, ["2018-04-09", "2018-04-20"], dates=["%Y-%d-%m"]) == [
        dt.date(2018, 9, 4)
    ]


WRITTEN = [
    *("2018-04-09T00:00:00+02:00", "2018-04-09T23:59:59-08:00", "2018-04-09T00:30:00Z"),
    *("2018-04-09 00:00:00.000", "2018-04-09 10:30", "2018-04-09T00:00:00.123456+0530"),
    "09.04.2018 00:10 +0200",
]
_PRINT_DATES = """
import sys
from pathlib import Path
from tests.cac_core.cohort.test_extracts import WRITTEN, _deaths, zoned_deaths
folder = Path(sys.argv[1])
print([str(d) for d in _deaths(folder, WRITTEN, dates=["%d.%m.%Y %H:%M %z"])], zoned_deaths(folder))
"""


def zoned_deaths(folder: Path) -> list[str]:
    """Dates of a Parquet column of times in a zone."""
    path = folder / "d.parquet"
    # Midnight of 9 April in Berlin is 8 April in UTC.
    times = pa.array([dt.datetime(2018, 4, 8, 22)], pa.timestamp("us", "UTC"))
    times = times.cast(pa.timestamp("us", "Europe/Berlin"))
    pq.write_table(pa.table({"id": ["P1"], "died": times}), path)
    return [str(row[1]) for row in _load(Extract(_source(format="parquet"), path, ""))]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles"])
def test_dates_are_as_written_in_any_time_zone(zone: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PRINT_DATES, str(tmp_path)],
        env={**os.environ, "TZ": zone, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    midnight = "2018-04-09 00:00:00.000000"
    assert done.stdout.strip() == f"{['2018-04-09'] * len(WRITTEN)} {[midnight]}"
