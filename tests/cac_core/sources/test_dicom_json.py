"""Headers in DICOM JSON: values of the wrong kind count as absent, and none ends the night."""

from __future__ import annotations

from typing import Any

import pytest

from cac_core.dicom import tags
from cac_core.dicom.header import header_row
from cac_core.sources.dicom_json import found_study, source_header, text_of
from tests.builders.dicom_files import ct_dataset
from tests.builders.pacs_night import KEYS, TEXTS

_ITEM: dict[str, Any] = ct_dataset().to_json_dict()


def item(**changes: Any) -> dict[str, Any]:
    return _ITEM | changes


@pytest.mark.parametrize(
    "element",
    [
        *(None, 7, [], "text", {}, {"vr": []}, {"vr": ["SQ"], "Value": [1]}, {"vr": {}}),
        *({"vr": "US", "Value": [10**30]}, {"vr": "US", "Value": ["x"]}, {"vr": "US", "Value": {}}),
        *({"vr": "DS", "Value": [{"a": [1]}]},),
    ],
)
def test_an_element_of_the_wrong_kind_is_absent(element: Any) -> None:
    header = source_header(item(**{"00280010": element}))
    assert tags.Rows not in header.raw.values
    without = source_header({tag: v for tag, v in item().items() if tag != "00280010"})
    assert header_row(header.raw, KEYS, TEXTS) == header_row(without.raw, KEYS, TEXTS)
    assert found_study("1.2", item(**{"00080020": element})).date is None


def test_texts_can_be_encoded() -> None:
    found = item(**{"00080018": {"vr": "UI", "Value": ["1.2\ud800"]}})
    assert source_header(found).instance_uid == "1.2?"
    name = {"vr": "PN", "Value": [{"Alphabetic": "A\udfff", "Phonetic": {"x": 1}}]}
    assert text_of({"00100010": name}, "00100010") == "A?"


@pytest.mark.parametrize("text", ["9" * 5000, "\u00b2", "\u0663", "-1", "1.5", "", "x"])
def test_a_number_of_instances_that_is_none(text: str) -> None:
    found = item(**{"00201208": {"vr": "IS", "Value": [text]}})
    assert found_study("1.2", found).n_instances is None
