"""Descriptions keep the words that identify nobody and those that a rule needs."""

from __future__ import annotations

import re
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cac_core.dicom.descriptions import (
    defined_modality,
    plain_words,
    reduce_description,
    reduce_device_text,
    reduce_image_type,
)
from cac_core.dicom.index import index_archive
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import load_rules, text_policy
from cac_core.dicom.series import series_table
from cac_core.keys import Keyring
from tests.builders.dicom_files import VENDORS, write_slices

RULES = load_rules()
POLICY = text_policy(RULES)
KEYS = Keyring(b"a secret of the description tests")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("CTAC", "CTAC"),
        ("AC_CT_HeartOnly  5.0  B08s", "AC_CT_HeartOnly  5.0  B08s"),
        ("CTAC Rest Dr. Wagner", "CTAC Rest *. *"),
        ("CTAC overweisung Huber/030 1234567", "CTAC * */* *"),
        ("SPECT 03.01.23.45.67", "SPECT *.*.*.*.*"),
        ("Stress 11.3.1947 Meier", "Stress *.*.* *"),
        ("AC Meier CT", "AC * CT"),
        ("Thorax 120 kV 20mAs 2.5 mm", "Thorax 120 kV 20mAs 2.5 mm"),
        ("+49 30 1234", "+* * *"),
        # Only the needed part of a word is kept.
        ("WagnerScore 3.0", "*Score 3.0"),
        ("CalcWagner", "Calc*"),
    ],
)
def test_words(text: str, kept: str) -> None:
    assert reduce_description(text, POLICY) == kept
    assert reduce_description(text, POLICY._replace(keep=True)) == text


def test_a_hidden_word_separates_its_neighbours() -> None:
    assert plain_words("NON * GATED") == "NON * GATED"
    assert reduce_description("NON Meier GATED", POLICY) == "NON * GATED"


def test_words_of_the_rules_of_a_site_are_kept(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text(
        "[[prefer]]\nname='ours'\npattern='\\bSCHWAECHUNG HERZ MITTE\\b'\n"
        "fields=['SeriesDescription']\nweight=1\nmark=true\n"
    )
    policy = text_policy(load_rules(site))
    text = "Schwaechung-Herz Mitte Frau Schulz"
    assert reduce_description(text, policy) == "Schwaechung-Herz Mitte * *"
    assert reduce_description(text, POLICY) == "*-Herz * * *"
    assert policy.digest != POLICY.digest != POLICY._replace(keep=True).digest


TEXTS = (
    "CTAC AC CT NON NO GATED ECG Meier rest Stress contrast with W O IV 3.0 B30s 030 LUNG",
    "scoring score MyScore fusion NAC attenuation Hawkeye W/O un-gated",
)
WORDS = st.sampled_from(" ".join(TEXTS).split())


@given(st.lists(st.one_of(WORDS, st.text(max_size=8)), max_size=8).map(" ".join))
def test_no_rule_gives_another_result(text: str) -> None:
    reduced = reduce_description(text, POLICY)
    for pattern in POLICY.patterns:
        before, after = (
            bool(re.search(pattern, plain_words(item), re.IGNORECASE)) for item in (text, reduced)
        )
        assert before == after


def test_image_types_and_modalities_come_from_lists() -> None:
    kept = reduce_image_type("ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 SPI", POLICY)
    assert kept == "ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 SPI"
    assert reduce_image_type("ORIGINAL\\MEIER\\REF_SURVIEW", POLICY) == "ORIGINAL\\*\\REF_SURVIEW"
    assert [defined_modality(text) for text in (b"CT", b"MEIER", b"")] == ["CT", "OT", None]
    assert reduce_device_text("Discovery NM/CT 670") == "Discovery NM/CT 670"
    assert reduce_device_text("Symbia meier@x.org 0301234567") == "Symbia * *"


def test_another_policy_reads_the_headers_again(tmp_path: Path) -> None:
    write_slices(tmp_path, 2, SeriesDescription="CTAC Wagner")

    def index(keep: bool, previous: object = None) -> tuple[int, set[str]]:
        found = index_archive(
            [tmp_path], KEYS, workers=1, previous=previous, texts=text_policy(RULES, keep=keep)
        )
        tables.append(found.instances)
        return found.n_opened, set(found.instances["SeriesDescription"].to_pylist())

    tables: list[object] = []
    assert index(True) == (2, {"CTAC Wagner"})
    assert index(False, tables[-1]) == (2, {"CTAC *"})
    assert index(False, tables[-1]) == (0, {"CTAC *"})
    assert index(True, tables[-1]) == (2, {"CTAC Wagner"})


@pytest.mark.parametrize("vendor", sorted(VENDORS))
def test_the_selection_is_the_same_on_reduced_words(tmp_path: Path, vendor: str) -> None:
    write_slices(tmp_path, 24, **VENDORS[vendor])
    evidence = set()
    for texts in (POLICY, POLICY._replace(keep=True)):
        found = index_archive([tmp_path], KEYS, workers=1, texts=texts)
        evidence.add(select_series(series_table(found.instances), RULES)["evidence"][0].as_py())
    assert len(evidence) == 1


#: Values of equipment, which stay by name; see the README.
_EQUIPMENT = {"Manufacturer", "ManufacturerModelName", "ConvolutionKernel"}


def test_identifiers_in_every_attribute_reach_no_table(tmp_path: Path) -> None:
    (path,) = write_slices(tmp_path, 1)
    dataset = pydicom.dcmread(path)
    fixed = {"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"}
    texts = {"LO", "SH", "ST", "LT", "UT", "PN", "CS", "UC", "AE"}
    planted = 0
    with pydicom.config.disable_value_validation():
        for tag, entry in pydicom.datadict.DicomDictionary.items():
            vr, keyword = entry[0], entry[4]
            if vr in texts and tag >> 16 >= 8 and keyword not in fixed | _EQUIPMENT:
                dataset.add_new(tag, vr, "ZQMARKER 0305551234")
                planted += keyword != ""
        del dataset.SpecificCharacterSet
        dataset.save_as(path)
    found = index_archive([tmp_path], KEYS, workers=1)
    series = select_series(series_table(found.instances), RULES)
    assert planted > 500 and series.num_rows == 1
    for table in (found.instances, series):
        text = str(table.to_pylist()).casefold()
        assert "zqmarker" not in text and "5551234" not in text


@pytest.mark.parametrize("text", ["U*MAP", "CTAC NON**GATED", "*AC* CT", "exam*summary"])
def test_asterisks_in_the_text_separate_words(text: str) -> None:
    plain = plain_words(text.replace("*", " "))
    for policy in (POLICY, POLICY._replace(keep=True)):
        reduced = plain_words(reduce_description(text, policy))
        for pattern in POLICY.patterns:
            assert bool(re.search(pattern, reduced)) == bool(re.search(pattern, plain)), pattern


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("Rest^Anna", {"SeriesDescription": "CTAC REST"}),
        ("van den Ten^Tom", {"SeriesDescription": "ATTENUATION CORR"}),
        ("Ang^Lee", {"SeriesDescription": "CT ANGIO"}),
        ("Ron^Lee", {"SeriesDescription": "CT CORONARY"}),
        ("Ac^Mehmet", {"SeriesDescription": "AC CT"}),
        ("CTAC^Test", {"SeriesDescription": "CTAC"}),
        ("Lung^Wei", {"ConvolutionKernel": "LUNG"}),
    ],
)
def test_the_name_of_the_patient_does_not_affect_the_selection(
    tmp_path: Path, name: str, header: dict[str, str]
) -> None:
    found = []
    for number, patient in enumerate((name, "Muster^Erika")):
        write_slices(tmp_path / str(number), 24, PatientName=patient, **header)
        series = series_table(index_archive([tmp_path / str(number)], KEYS, workers=1).instances)
        (row,) = select_series(series, RULES).to_pylist()
        found.append([row[key] for key in ("selected", "reason", "evidence", "ctac_role")])
    assert found[0] == found[1]


def test_a_name_that_no_rule_needs_stays_masked(tmp_path: Path) -> None:
    write_slices(tmp_path, 1, PatientName="Rest^Meier", SeriesDescription="CTAC Rest/Meier")
    (row,) = index_archive([tmp_path], KEYS, workers=1).instances.to_pylist()
    assert row["SeriesDescription"] == "CTAC Rest/***"
    write_slices(tmp_path, 1, PatientName="Long^Meier", SeriesDescription="CTAC long Meier")
    (row,) = index_archive([tmp_path], KEYS, workers=1).instances.to_pylist()
    assert row["SeriesDescription"] == "CTAC *** ***"


def test_a_site_may_name_its_scanner_by_a_number(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text(
        "[[prefer]]\nname='ours'\npattern='\\b728231\\b'\n"
        "fields=['ManufacturerModelName']\nweight=1\nmark=true\n"
    )
    policy = text_policy(load_rules(site))
    assert reduce_device_text("Scanner 728231", policy) == "Scanner 728231"
    assert reduce_device_text("Scanner 728232", policy) == "Scanner *"
    assert reduce_device_text("Scanner 728231", POLICY) == "Scanner *"
    assert policy.digest != POLICY.digest
