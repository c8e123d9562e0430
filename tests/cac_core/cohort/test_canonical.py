"""Extract files to canonical parts: formats, encodings, codes, units, and faults."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cac_core.cohort.canonical import make_part
from cac_core.cohort.extract_parts import Part, PartStore
from cac_core.cohort.extract_rows import check_header
from cac_core.cohort.extracts import find_extracts
from cac_core.cohort.mapping import load_mapping
from cac_core.errors import CacError, UsageError
from schemas.registry import REGISTRY_TABLES
from tests.builders.registries import HEADERS, MAPPING, RESOURCES, make_parts, write_site

CLINICAL = b"id,scan,accession,age,sex,diabetes,prior_mi\nP1,2015-06-01,A1,60,M,1,0\n"


def _part(path: Path, table: str = "clinical") -> Part:
    _, parts = make_parts(path, path.parent / "w")
    return next(part for part in parts if part.extract.source.table == table)


def _rows(part: Part) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(part.rows).to_pylist()
    return rows


def _faults(part: Part) -> list[tuple[object, ...]]:
    names = ("source_line", "column", "reason", "value_shape")
    return [tuple(row[n] for n in names) for row in pq.read_table(part.quarantine).to_pylist()]


def _zipped(data: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/._clinical.csv", b"what macOS puts beside it")
        archive.writestr("clinical.csv", data)


PACKED: dict[str, Callable[[bytes, Path], object]] = {
    "clinical.csv": lambda data, path: path.write_bytes(data),
    "clinical.csv.gz": lambda data, path: path.write_bytes(gzip.compress(data)),
    "clinical.csv.bz2": lambda data, path: path.write_bytes(bz2.compress(data)),
    "clinical.csv.xz": lambda data, path: path.write_bytes(lzma.compress(data)),
    "clinical.csv.zst": lambda data, path: path.write_bytes(pa.compress(data, "zstd", True)),
    "clinical.csv.zip": _zipped,
}


@pytest.mark.parametrize("name", PACKED)
def test_compressed_files_give_the_rows_of_plain_ones(name: str, tmp_path: Path) -> None:
    path = write_site(tmp_path, MAPPING.replace("clinical.csv", name))
    PACKED[name](CLINICAL, tmp_path / name)
    (row,) = _rows(_part(path))
    assert (row["patient_id"], row["age_years"], row["diabetes"]) == ("P1", 60.0, 1)
    assert (row["source_file"], row["source_line"]) == ("clinical/1", 2)


@pytest.mark.parametrize("name", [n for n in PACKED if n not in ("clinical.csv",)])
def test_a_truncated_compressed_file_is_reported(name: str, tmp_path: Path) -> None:
    path = write_site(tmp_path, MAPPING.replace("clinical.csv", name))
    PACKED[name](CLINICAL + b"".join(b"P%d,2015-06-01,A,60,M,1,0\n" % n for n in range(9000)),
                 tmp_path / name)  # fmt: skip
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(
        UsageError, match=rf"Source clinical: the file {name} (is truncated|cannot be)"
    ):
        _part(path)


def test_a_workbook_gives_the_rows_of_a_csv(tmp_path: Path) -> None:
    mapping = MAPPING.replace('files = "clinical.csv"', 'files = "c.xlsx"\nformat = "excel"')
    path = write_site(tmp_path, mapping)
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["id", "scan", "accession", "age", "sex", "diabetes", "prior_mi"])
    sheet.append([10023, dt.date(2015, 6, 1), "A1", 60.5, "M", 1, 0])
    book.save(tmp_path / "c.xlsx")
    (row,) = _rows(_part(path))
    assert row["patient_id"] == "10023"
    assert (row["study_date"], row["age_years"]) == (dt.date(2015, 6, 1), 60.5)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16"])
def test_encodings_of_the_mapping(encoding: str, tmp_path: Path) -> None:
    reported = f'files = "clinical.csv"\nencoding = "{encoding}"'
    path = write_site(tmp_path, MAPPING.replace('files = "clinical.csv"', reported))
    text = CLINICAL.decode().replace("P1", "Müller-1")
    (tmp_path / "clinical.csv").write_bytes(text.encode(encoding))
    assert _rows(_part(path))[0]["patient_id"] == "Müller-1"


@pytest.mark.parametrize(
    ("end", "encoding", "packed"),
    [
        ("\n", "utf-8-sig", ""),
        ("\r\n", "utf-8", ""),
        ("\r\n", "utf-8-sig", ""),
        ("\r\n", "cp1252", ""),
        ("\r\n", "utf-8", ".gz"),
        ("\r", "utf-8-sig", ""),
    ],
)
def test_every_line_end_gives_the_same_rows(
    end: str, encoding: str, packed: str, tmp_path: Path
) -> None:
    """Spreadsheets on Windows write CR LF, and most of them a mark of byte order."""
    name = f"clinical.csv{packed}"
    path = write_site(tmp_path, MAPPING.replace("clinical.csv", name))
    lines = [HEADERS["clinical"], *(f"P{n},2015-06-01,,60,M,1,0" for n in range(300)), ""]
    data = end.join(lines).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
    found = {row["source_line"]: row["patient_id"] for row in _rows(_part(path))}
    assert found == {n + 2: f"P{n}" for n in range(300)}


def test_a_file_in_another_encoding_is_reported(tmp_path: Path) -> None:
    reported = 'files = "clinical.csv"\nencoding = "utf-16"'
    path = write_site(tmp_path, MAPPING.replace('files = "clinical.csv"', reported))
    (tmp_path / "clinical.csv").write_bytes(CLINICAL.decode().encode("utf-16-le"))
    with pytest.raises(UsageError, match=r"is not in the encoding utf-16.*Correct `encoding`"):
        _part(path)


def test_lines_in_another_encoding_use_the_fallback(tmp_path: Path) -> None:
    path = write_site(tmp_path)
    lines = [CLINICAL.replace(b"P1", "Ü1".encode())]
    lines.append("Ü2,2015-06-01,A1,60,M,1,0\n".encode("cp1252"))
    (tmp_path / "clinical.csv").write_bytes(b"".join(lines))
    assert {row["patient_id"] for row in _rows(_part(path))} == {"Ü1", "Ü2"}


def test_codings_units_and_dates_of_the_mapping(tmp_path: Path) -> None:
    mapping = """
site = "units"
[coverage]
end = 2019-12-31
[[source]]
name = "clinical"
table = "clinical"
files = "clinical.csv"
delimiter = ";"
decimal = ","
dates = ["%d.%m.%Y"]
missing = ["", "unknown"]
[source.columns]
patient_id = "id"
study_date = "scan"
birth_date = "born"
weight_kg = { column = "weight", unit = "lb" }
height_cm = { column = "height", unit = "in" }
sex = { column = "sex", codes = { "1" = "M", "2" = "F" } }
diabetes = { column = "dm", codes = { ja = "1", nein = "0" } }
smoking = { constant = "0" }
"""
    path = write_site(tmp_path, mapping)
    text = "id;scan;born;weight;height;sex;dm\nP1;01.06.2015;01.06.1955;154,3;70;2;ja\n"
    (tmp_path / "clinical.csv").write_text(text + "P2;02.06.2015;;;;unknown;\n", encoding="utf-8")
    first, second = sorted(_rows(_part(path)), key=lambda row: str(row["patient_id"]))
    # 154.3 lb are 69.99 kg; 70 in are 1.778 m.
    assert first["bmi_kg_m2"] == pytest.approx(69.99 / 1.778**2, abs=0.01)
    assert first["age_years"] == pytest.approx(60.0, abs=0.01)
    assert (first["sex"], first["diabetes"], first["smoking"]) == ("F", 1, 0)
    assert [second[n] for n in ("sex", "diabetes", "bmi_kg_m2", "age_years")] == [None] * 4
    assert "birth_date" not in first


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("P1,06/01/2015,A1,60,M,1,0", ("study_date", "unparsed_date", "99/99/9999")),
        ("P1,2015-02-31,A1,60,M,1,0", ("study_date", "unparsed_date", "9999-99-99")),
        (",2015-06-01,A1,60,M,1,0", ("patient_id", "missing_value", None)),
        ("P1,2015-06-01,A1,60", (None, "unreadable_line", None)),
        ("P1,2015-06-01,A1,60,M,1,0,9", (None, "unreadable_line", None)),
        ('P1,2015-06-01,"A1,60,M,1,0', (None, "unreadable_line", None)),
    ],
)
def test_a_bad_row_is_in_quarantine_with_line_column_and_reason(
    line: str, fault: tuple[str | None, str, str | None], tmp_path: Path
) -> None:
    good = "P7,2015-06-01,A7,60,F,0,0"
    part = _part(write_site(tmp_path, clinical=[good, line]))
    assert (3, *fault) in _faults(part)
    assert [row["patient_id"] for row in _rows(part)] == ["P7"]
    assert (part.n_rows, part.n_unusable, part.n_lines) == (1, 1, 2)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("P1,2015-06-01,A1,sixty,M,1,0", ("age_years", "unparsed_number", "AAAAA")),
        ("P1,2015-06-01,A1,160,M,1,0", ("age_years", "out_of_range", "999")),
        ("P1,2015-06-01,A1,0,M,1,0", ("age_years", "out_of_range", "9")),
        ("P1,2015-06-01,A1,inf,M,1,0", ("age_years", "unparsed_number", "AAA")),
        ("P1,2015-06-01,A1,nan,M,1,0", ("age_years", "unparsed_number", "AAA")),
        ("P1,2015-06-01,A1,1e400,M,1,0", ("age_years", "out_of_range", "9A999")),
        ("P1,2015-06-01,A1,1_0,M,1,0", ("age_years", "unparsed_number", "9_9")),
        ('P1,2015-06-01,A1,"6,0",M,1,0', ("age_years", "unparsed_number", "9,9")),
        ("P1,2015-06-01,A1,60,Q,1,0", ("sex", "unmapped_code", "Q")),
        ("P1,2015-06-01,A1,60,M,maybe,0", ("diabetes", "unmapped_code", "AAAAA")),
        ("P1,2015-06-01,A1,60,M,1,2", ("prior_mi", "unmapped_code", "2")),
    ],
)
def test_a_bad_cell_is_in_quarantine_and_its_row_is_kept(
    line: str, fault: tuple[str, str, str | None], tmp_path: Path
) -> None:
    part = _part(write_site(tmp_path, clinical=[line]))
    assert _faults(part) == [(2, *fault)]
    (row,) = _rows(part)
    whole = {"patient_id": "P1", "study_date": dt.date(2015, 6, 1), "accession_number": "A1"}
    whole |= {"age_years": 60.0, "sex": "M", "diabetes": 1, "prior_mi": 0} | {fault[0]: None}
    assert {name: row[name] for name in whole} == whole
    assert (part.n_unusable, part.cells) == (0, {fault[:2]: 1})


@pytest.mark.parametrize(
    ("columns", "line", "empty", "fault"),
    [
        ('bmi_kg_m2 = "x"', "412", "bmi_kg_m2", ("bmi_kg_m2", "out_of_range")),
        ('weight_kg = "x"\nheight_cm = "y"', "999,170", "bmi_kg_m2", ("weight_kg", "out_of_range")),
        ('weight_kg = "x"\nheight_cm = "y"', "150,45", "bmi_kg_m2", ("bmi_kg_m2", "out_of_range")),
        ('birth_date = "x"', "2016-01-01", "age_years", ("birth_date", "before_birth")),
        ('birth_date = "x"', "1885-01-01", "age_years", ("age_years", "out_of_range")),
        ('birth_date = "x"', "soon", "age_years", ("birth_date", "unparsed_date")),
    ],
)
def test_values_computed_from_implausible_cells_are_missing(
    columns: str, line: str, empty: str, fault: tuple[str, str], tmp_path: Path
) -> None:
    mapping = (
        MAPPING.split("[[source]]")[0]
        + f"""
[[source]]
name = "clinical"
table = "clinical"
files = "clinical.csv"
[source.columns]
patient_id = "id"
study_date = "scan"
{columns}
"""
    )
    path = write_site(tmp_path, mapping)
    text = "id,scan,x,y\nP1,2015-06-01," + line + ("\n" if "," in line else ",\n")
    (tmp_path / "clinical.csv").write_text(text, encoding="utf-8")
    part = _part(path)
    (row,) = _rows(part)
    assert row[empty] is None
    assert list(part.cells) == [fault]


def test_every_number_of_the_registry_has_a_range() -> None:
    for table in REGISTRY_TABLES:
        for column in table.columns:
            if pa.types.is_floating(column.type):
                assert column.ge is not None and column.le is not None, column.name


@pytest.mark.parametrize(
    ("line", "empty"),
    [
        ("P1,2015-06-05,soon,inpatient,I21,M,,", "discharge_date"),
        ("P1,2015-06-05,9999-12-31,inpatient,I21,M,,", "discharge_date"),
        ("P1,2015-06-05,,inpatient,I21,M,K40,once", "procedure_date"),
    ],
)
def test_a_record_is_kept_without_an_optional_date(line: str, empty: str, tmp_path: Path) -> None:
    part = _part(write_site(tmp_path, encounters=[line]), "encounters")
    (row,) = _rows(part)
    assert (row[empty], row["diagnosis_code"]) == (None, "I21")
    assert list(part.cells) == [(empty, "unparsed_date")]


@pytest.mark.parametrize(
    "text",
    [
        *("ICD10:I21.4", "ICD-10-CM|i21.4", "icd10ca: I21.4", "I21.4", "I214"),
        *("ICD10 I21.4", "ICD-10-GM-2020 I21.4", "ICD10CM_I21.4", "ICD-10-I21.4", "icd10=I21.4"),
        "http://hl7.org/fhir/sid/icd-10-cm|I21.4",
    ],
)
def test_codes_match_with_and_without_the_name_of_their_system(text: str, tmp_path: Path) -> None:
    line = f"P1,2015-06-05,,INPATIENT,{text},m,CCI:1.IJ.50,"
    (row,) = _rows(_part(write_site(tmp_path, encounters=[line]), "encounters"))
    names = ("diagnosis_code", "diagnosis_type", "procedure_code", "record_type")
    assert [row[n] for n in names] == ["I214", "M", "1IJ50", "inpatient"]


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        ("P1,2015-06-05,2015-06-01,inpatient,I21,M,,", "discharge_date", "date_order"),
        ("P1,2015-06-05,2015-06-09,inpatient,I21,M,K40,2015-05-01", "procedure_date", "date_order"),
        ("P1,2020-01-01,2020-01-02,inpatient,I21,M,,", "admit_date", "after_coverage"),
        ("P1,,,inpatient,I21,M,,", "admit_date", "missing_value"),
        ("P1,2015-06-05,,hospice,I21,M,,", "record_type", "unmapped_code"),
    ],
)
def test_dates_of_encounters_must_be_in_order(
    line: str, column: str, reason: str, tmp_path: Path
) -> None:
    part = _part(write_site(tmp_path, encounters=[line]), "encounters")
    assert any(fault[1:3] == (column, reason) for fault in _faults(part))
    assert part.n_rows == 0


def test_quarantine_reveals_no_identifier(tmp_path: Path) -> None:
    lines = ["SECRET-77,2015-06-01,ACC-99,60,Q,1,0", ",2015-06-01,ACC-98,60,M,1,0"]
    part = _part(write_site(tmp_path, clinical=lines))
    for planted in (b"SECRET", b"ACC-9", b"AAAAAA-99"):
        assert planted not in part.quarantine.read_bytes()


def test_a_file_read_before_is_not_read_again(tmp_path: Path) -> None:
    path = write_site(tmp_path, clinical=["P1,2015-06-01,A1,60,M,1,0"])
    warehouse = tmp_path / "w"
    _, first = make_parts(path, warehouse)
    _, again = make_parts(path, warehouse)
    assert not any(part.reused for part in first)
    assert all(part.reused for part in again)
    (tmp_path / "deaths.csv").write_text("id,died\nP1,2016-01-01\n", encoding="utf-8")
    _, changed = make_parts(path, warehouse)
    assert [p.extract.source.table for p in changed if not p.reused] == ["deaths"]


def test_publishing_keeps_the_given_parts_and_removes_all_others(tmp_path: Path) -> None:
    path = write_site(tmp_path, clinical=["P1,2015-06-01,A1,60,M,1,0"])
    warehouse = tmp_path / "w"
    store = PartStore(warehouse, warehouse / "_staging" / "linkage")
    _, first = make_parts(path, warehouse)
    assert not (warehouse / "registry").exists()  # nothing is published while a run can fail
    store.publish(first)
    (tmp_path / "deaths.csv").write_text("id,died\nP1,2016-01-01\n", encoding="utf-8")
    _, second = make_parts(path, warehouse)
    store.publish(second)
    kept = {file.stem for file in (warehouse / "registry").rglob("*.parquet")}
    assert kept == {part.digest for part in second}
    assert len(list((warehouse / "quarantine").glob("*.parquet"))) == len(second)


def test_a_missing_column_is_named_with_what_the_file_has(tmp_path: Path) -> None:
    path = write_site(tmp_path)
    (tmp_path / "clinical.csv").write_text("ID,scan,accession,age,sex,diabetes,prior_mi\n", "utf-8")
    extract = find_extracts(load_mapping(path).source[0], tmp_path)[0]
    with pytest.raises(UsageError, match=r"clinical.csv has no column id .*The file has `ID`"):
        check_header(extract)


def test_the_column_most_like_a_wrong_name_is_suggested(tmp_path: Path) -> None:
    path = write_site(tmp_path)
    header = "Patient ID,scan,accession,Age (years),sex,diabetis,prior_mi\n"
    (tmp_path / "clinical.csv").write_text(header, "utf-8")
    text = path.read_text().replace('"id"', '"patient_id"').replace('"age"', '"Age_year"')
    path.write_text(text, encoding="utf-8")
    extract = find_extracts(load_mapping(path).source[0], tmp_path)[0]
    with pytest.raises(UsageError) as raised:
        check_header(extract)
    for close, name in (("Patient ID", "patient_id"), ("Age (years)", "Age_year"),
                        ("diabetis", "diabetes")):  # fmt: skip
        assert f"`{close}` (for `{name}`)" in raised.value.hint
    assert "delimiter" not in raised.value.hint


@pytest.mark.parametrize("name", ["clinical.csv", "clinical.csv.gz"])
def test_an_empty_file_is_called_empty(name: str, tmp_path: Path) -> None:
    path = write_site(tmp_path)
    path.write_text(path.read_text().replace("clinical.csv", name), encoding="utf-8")
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    with pytest.raises(UsageError, match=rf"{name} is empty") as raised:
        check_header(find_extracts(load_mapping(path).source[0], tmp_path)[0])
    assert "delimiter" not in str(raised.value)


def test_a_wrong_delimiter_is_suggested_as_the_cause(tmp_path: Path) -> None:
    path = write_site(tmp_path)
    (tmp_path / "clinical.csv").write_text(CLINICAL.decode().replace(",", ";"), encoding="utf-8")
    extract = find_extracts(load_mapping(path).source[0], tmp_path)[0]
    with pytest.raises(UsageError, match=r"one column in line 1.*Is `delimiter` = ',' right\?"):
        check_header(extract)


def test_a_missing_extract_is_named(tmp_path: Path) -> None:
    path = write_site(tmp_path)
    (tmp_path / "deaths.csv").unlink()
    with pytest.raises(UsageError, match=r"Source deaths: no file matches `deaths.csv`"):
        _part(path)


def test_an_unwritable_warehouse_is_reported(tmp_path: Path) -> None:
    path = write_site(tmp_path, clinical=["P1,2015-06-01,A1,60,M,1,0"])
    mapping = load_mapping(path)
    (tmp_path / "blocked").write_text("a file where a folder must be", encoding="utf-8")
    store = PartStore(tmp_path / "blocked", tmp_path / "blocked" / "staging")
    extract = find_extracts(mapping.source[0], tmp_path)[0]
    with pytest.raises(CacError, match="cannot be written"):
        make_part(extract, mapping, store, RESOURCES)
