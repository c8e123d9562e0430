"""Studies: one patient, one date, one series, independent of file names and order."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cac_core.cohort.worklist import Identity, rejected_unread, wanted_studies, work_orders
from cac_core.dicom.index import index_archive
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import load_rules
from cac_core.dicom.series import series_table
from cac_core.keys import Keyring
from cac_core.study import StudyWork
from schemas.codes import QualityFlag
from tests.builders.dicom_files import NM_CLASS, write_slices

RULES = load_rules()
KEYS = Keyring(b"a secret of the study tests")
NUCLEAR: dict[str, Any] = {
    "SeriesInstanceUID": "1.2.3.4.8",
    "Modality": "NM",
    "SOPClassUID": NM_CLASS,
    "SeriesDescription": "Rest AC",
}
REPAIRED, FROM_SERIES = "study_date_repaired", "study_date_from_series"
#: Another series of the study that is a CTAC just as well.
RIVAL: dict[str, Any] = {"SeriesInstanceUID": "1.2.3.4.6"}


def study(folder: Path, keys: Keyring = KEYS) -> tuple[dict[str, Any], StudyWork]:
    """The one study of a folder: its row and its work order."""
    found = index_archive([folder], keys, workers=1)
    series = select_series(series_table(found.instances), RULES)
    wanted = wanted_studies(found.instances, series, Identity("a" * 64, "b" * 16, RULES.digest))
    (row,) = wanted.to_pylist()
    (order,) = work_orders(wanted, found.instances, found.paths)
    return row, order


@pytest.mark.parametrize("other", [{"PatientID": "B"}, {"PatientID": "B", **NUCLEAR}])
@pytest.mark.parametrize("cut", [None, -10])
def test_a_study_of_two_patients_is_not_scored(
    tmp_path: Path, other: dict[str, Any], cut: int | None
) -> None:
    write_slices(tmp_path / "a", 24, PatientID="A")
    (path,) = write_slices(tmp_path / "b", 1, **({"SeriesInstanceUID": "1.2.3.4.7"} | other))
    path.write_bytes(path.read_bytes()[:cut])
    row, order = study(tmp_path)
    assert (row["reason"], row["detail"]) == ("several_patients", "2 patients")
    assert row["patient_key"] is None and order.files == ()
    result = rejected_unread(order)
    assert result is not None and result.score["patient_key"] is None
    assert result.score["reason"] == "several_patients"


def test_a_copy_under_another_patient_counts(tmp_path: Path) -> None:
    write_slices(tmp_path / "a", 24, PatientID="A")
    write_slices(tmp_path / "b", 24, PatientID="B")
    assert study(tmp_path)[0]["reason"] == "several_patients"


def test_spellings_of_one_patient_are_equal(tmp_path: Path) -> None:
    write_slices(tmp_path, 24, PatientID="mrn 0012345")
    write_slices(tmp_path, 1, PatientID=" MRN0012345", **NUCLEAR)
    row, order = study(tmp_path)
    assert row["reason"] is None and row["patient_key"] == KEYS.patient_key("MRN0012345")
    assert order.flags == ()


def test_a_missing_patient_is_not_a_second_one(tmp_path: Path) -> None:
    write_slices(tmp_path, 24, PatientID=None)
    write_slices(tmp_path, 1, PatientID="A", **NUCLEAR)
    row, order = study(tmp_path)
    assert row["patient_key"] == KEYS.patient_key("A")
    assert order.flags == (QualityFlag.PATIENT_ID_INCOMPLETE,)


def test_a_corrected_patient_changes_the_digest(tmp_path: Path) -> None:
    write_slices(tmp_path, 24, PatientID="A1")
    before = study(tmp_path)[0]
    write_slices(tmp_path, 24, PatientID="B1")  # the same sizes
    after = study(tmp_path)[0]
    assert after["patient_key"] != before["patient_key"]
    assert after["instances_digest"] != before["instances_digest"]
    write_slices(tmp_path, 1, PatientID="C1", **NUCLEAR)
    assert study(tmp_path)[0]["instances_digest"] not in (
        before["instances_digest"],
        after["instances_digest"],
    )


@pytest.mark.parametrize(
    ("header", "expected", "flag"),
    [
        ({"StudyDate": "20200409"}, dt.date(2020, 4, 9), None),
        ({"StudyDate": "2020.04.09"}, dt.date(2020, 4, 9), None),
        ({"StudyDate": "2020-04-09"}, dt.date(2020, 4, 9), REPAIRED),
        ({"StudyDate": "20200409120000"}, dt.date(2020, 4, 9), REPAIRED),
        ({"StudyDate": "2020-04-09T00:00:00+02:00"}, dt.date(2020, 4, 9), REPAIRED),
        (
            {"StudyDate": "", "SeriesDate": "20200410"},
            dt.date(2020, 4, 10),
            FROM_SERIES,
        ),
        (
            {"StudyDate": "09/04/2020", "AcquisitionDate": "20200410", "ContentDate": "20200411"},
            dt.date(2020, 4, 10),
            FROM_SERIES,
        ),
        (
            {"StudyDate": None, "ContentDate": "20200411"},
            dt.date(2020, 4, 11),
            FROM_SERIES,
        ),
        ({"StudyDate": "09/04/2020"}, None, None),
    ],
)
def test_the_date_and_its_substitutes(
    tmp_path: Path, header: dict[str, Any], expected: dt.date | None, flag: str | None
) -> None:
    write_slices(tmp_path, 24, **header)
    row, order = study(tmp_path)
    assert (row["study_date"], order.study_date) == (expected, expected)
    assert [item.value for item in order.flags] == ([flag] if flag else [])


def test_two_dates_are_flagged_and_the_scored_series_decides(tmp_path: Path) -> None:
    write_slices(tmp_path, 24, StudyDate="20200410")
    write_slices(tmp_path, 1, StudyDate="20200409", **NUCLEAR)
    row, order = study(tmp_path)
    assert row["study_date"] == dt.date(2020, 4, 10)
    assert order.flags == (QualityFlag.SEVERAL_STUDY_DATES,)


def test_missing_attributes_are_flagged(tmp_path: Path) -> None:
    write_slices(tmp_path, 24, KVP=None)
    assert study(tmp_path)[1].flags == (QualityFlag.INCOMPLETE_HEADER,)


def test_other_series_without_a_mark_are_not_ctac(tmp_path: Path) -> None:
    write_slices(tmp_path, 24)
    plain = {"SeriesDescription": "CHEST", "ManufacturerModelName": "Sensation 64"}
    write_slices(tmp_path, 24, **RIVAL, **plain)
    assert study(tmp_path)[1].flags == ()
    write_slices(tmp_path, 24, **RIVAL)
    assert study(tmp_path)[1].flags == (QualityFlag.SEVERAL_CTAC_SERIES,)


def test_indistinguishable_series_are_flagged(tmp_path: Path) -> None:
    plain = {"SeriesDescription": "CHEST", "ManufacturerModelName": "Sensation 64"}
    write_slices(tmp_path, 24, **plain)
    write_slices(tmp_path, 24, **(plain | RIVAL))
    assert set(study(tmp_path)[1].flags) == {
        QualityFlag.NO_CTAC_EVIDENCE,
        QualityFlag.SEVERAL_CTAC_SERIES,
    }


def test_a_capture_is_not_a_ct_series(tmp_path: Path) -> None:
    write_slices(tmp_path, 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    assert study(tmp_path)[0]["reason"] == "no_ct_series"


@pytest.mark.parametrize(
    "difference",
    [
        {"AcquisitionTime": "101500"},
        {"SeriesTime": "101500.5"},
        {"KVP": "110"},
        {"ConvolutionKernel": "SOFT"},
        {"AcquisitionNumber": "2"},
        {"SeriesDescription": "CTAC 3.0"},
    ],
)
def test_the_secret_does_not_affect_the_selection(
    tmp_path: Path, difference: dict[str, Any]
) -> None:
    first = {"AcquisitionTime": "101400", "SeriesTime": "101400", "AcquisitionNumber": "1"}
    write_slices(tmp_path, 24, **first)
    write_slices(tmp_path, 24, **(first | RIVAL | difference))
    chosen = set()
    for secret in range(4):
        keys = Keyring(b"%d" % secret)
        row = study(tmp_path, keys)[0]
        uids = ("1.2.3.4.5", "1.2.3.4.6")
        chosen.add(next(uid for uid in uids if row["SeriesInstanceUID"] == keys.pseudonym_uid(uid)))
    assert len(chosen) == 1


@pytest.mark.parametrize(
    ("values", "column", "expected"),
    [
        ({"ConvolutionKernel": ("SOFT", "STANDARD")}, "ConvolutionKernel", "SOFT"),
        ({"KVP": ("130", "120")}, "KVP", 120.0),
    ],
)
def test_contradictions_within_a_series_are_decided_by_majority(
    tmp_path: Path, values: dict[str, Any], column: str, expected: object
) -> None:
    ((keyword, (one, other)),) = values.items()
    paths = write_slices(tmp_path, 24, **{keyword: one})
    odd = write_slices(tmp_path / "odd", 24, **{keyword: other})
    for number in range(12):  # half of the slices say one thing, half the other
        shutil.move(odd[number], paths[number])
    shutil.rmtree(tmp_path / "odd")
    for secret in range(3):
        row, _ = study(tmp_path, Keyring(b"%d" % secret))
        assert row[column] == expected


@given(
    order=st.permutations(range(22)),
    copied=st.sets(st.integers(0, 21), max_size=4),
    secret=st.binary(min_size=1, max_size=8),
)
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_names_copies_and_secrets_do_not_matter(
    tmp_path: Path, order: list[int], copied: set[int], secret: bytes
) -> None:
    source = tmp_path / "source"
    if not source.exists():
        write_slices(source, 22, StudyDate="2020-04-09", KVP=None)
    files = sorted(source.iterdir())
    here = tmp_path / "here"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    for number, place in enumerate(order):
        shutil.copy2(files[place], here / f"{number:03d}")
        if place in copied:
            shutil.copy2(files[place], here / f"copy-{number}.dcm")
    keys = Keyring(secret)
    (row, order_here), (reference, expected) = study(here, keys), study(source, keys)
    assert row == reference
    assert len(order_here.files) == len(expected.files) == 22
    assert all(stamp.copy_of is None for stamp in order_here.files)
    assert (order_here.flags, order_here.header) == (expected.flags, expected.header)
    assert study(source, KEYS)[1].flags == expected.flags
