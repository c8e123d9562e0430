"""Codes and types that can be no event are listed with counts."""

from __future__ import annotations

from pathlib import Path

from cac_core.cohort.outcomes import load_outcomes
from cac_core.cohort.unknown_codes import unknown_codes
from tests.builders.registries import make_parts, write_site


def test_codes_of_no_known_form_and_types_of_no_rule_are_listed(tmp_path: Path) -> None:
    lines = [
        "P1,2015-06-05,,inpatient,I21.4,m,,",
        "P1,2015-06-06,,inpatient,410.9,Q,1.IJ.50.GQ,",
        "P2,2015-06-07,,inpatient,410.9,Q,stent,",
        "P2,2015-06-08,,inpatient,Mustermann,M,,",
        "P2,2015-06-08,,inpatient,1234567890,M,,",
        "P2,2015-06-09,,inpatient,I21.4,Jörg 李,,",
    ]
    _, parts = make_parts(write_site(tmp_path, encounters=lines), tmp_path / "w")
    found = [(u.kind, u.value, u.rows) for u in unknown_codes(parts, load_outcomes())]
    assert found == [
        ("diagnosis_code", "4109", 2),
        ("diagnosis_code", "9999999999", 1),
        ("diagnosis_code", "AAAAAAAAAA", 1),
        ("diagnosis_type", "Q", 2),
        ("diagnosis_type", "AAAA A", 1),
        ("procedure_code", "AAAAA", 1),
    ]
