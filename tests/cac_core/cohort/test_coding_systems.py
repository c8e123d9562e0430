"""Codes of several systems, and codes and constants of repeated columns."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from cac_core.cohort.mapping import load_mapping
from cac_core.cohort.outcomes import load_outcomes
from cac_core.cohort.unknown_codes import code_warnings, unknown_codes
from cac_core.errors import UsageError
from tests.builders.registries import KEYRING, MAPPING, link_extracts, studies, write_site

SCAN = dt.date(2015, 6, 1)
#: Kind, system as the mapping states it, code, and the outcomes that a record of it is an event of.
RECORDS = (
    ("px", "", "1.IJ.50.GQ", {"mace"}),
    ("px", "", "02703DZ", {"mace"}),
    ("px", "", "K40.1", {"mace"}),
    ("px", "OPS", "5-361.03", {"mace"}),
    ("px", "OPS", "8-837.m0", {"mace"}),
    ("px", "OPS", "8-836.0", set()),
    ("px", "NOMESCO", "FNG05", {"mace"}),
    ("px", "NOMESCO", "KFNC10", {"mace"}),
    ("px", "NOMESCO", "FNW96", set()),
    ("px", "ICD-9-CM", "36.07", {"mace"}),
    ("px", "ICD-9-CM", "36.12", {"mace"}),
    ("px", "ICD-9-CM", "02.11", set()),  # meninges; ICD-10-PCS 0211 is a bypass
    ("px", "CPT", "92928", {"mace"}),
    ("px", "CPT", "33533", {"mace"}),
    ("px", "CPT", "92978", set()),  # ultrasound only
    ("px", "ICD-10-PCS", "K40.1", set()),  # of OPCS-4
    ("px", "other", "K40.1", set()),
    ("px", "", "36.07", set()),  # not stated, so not compared with ICD-9-CM
    ("dx", "", "I21.4", {"mace", "death_mi"}),
    ("dx", "", "DI214", {"mace", "death_mi"}),
    ("dx", "ICD-10", "I20.0", {"mace"}),
    ("dx", "ICD-9-CM", "410.71", {"mace", "death_mi"}),
    ("dx", "ICD-9-CM", "410.72", set()),  # a subsequent episode of care
    ("dx", "ICD-9-CM", "411.1", {"mace"}),
    ("dx", "", "410.71", set()),
    ("dx", "ICD-9-CM", "I21.4", set()),
)
SYSTEMS = MAPPING.replace(
    'procedure_date = "px_date"',
    'procedure_date = "px_date"\nprocedure_system = "discharge"\ndiagnosis_system = "px_date"',
).replace('discharge_date = "discharge"\n', "")


def test_a_record_is_compared_with_the_lists_of_its_system(tmp_path: Path) -> None:
    """One patient per record; columns of the builder that are not needed hold the systems."""
    mapping = SYSTEMS.replace('procedure_date = "px_date"\n', "")
    lines = [
        f"P{n},2015-06-11,{system if kind == 'px' else ''},inpatient,"
        + (f"{code},M,," if kind == "dx" else f",,{code},")
        + (system if kind == "dx" else "")
        for n, (kind, system, code, _) in enumerate(RECORDS)
    ]
    clinical = [f"P{n},2015-06-01,,60,M,0,0" for n in range(len(RECORDS))]
    path = write_site(tmp_path, mapping, clinical=clinical, encounters=lines)
    scores = studies(*((f"P{n}", SCAN) for n in range(len(RECORDS))))
    done, _ = link_extracts(path, tmp_path / "w", scores)
    rows = {row["patient_key"]: row for row in done.linked.to_pylist()}
    for n, (*record, outcomes) in enumerate(RECORDS):
        row = rows[KEYRING.patient_key(f"P{n}")]
        found = {name for name in ("mace", "death_mi") if row[f"{name}_event"]}
        assert found == outcomes, record


REPEATED = """
columns = { diagnosis_code = "dx", diagnosis_type = { constant = "M" } }
[[source.repeated]]
count = 2
columns = { diagnosis_code = "ND{n:02}", diagnosis_type = { column = "T{n}", codes = { N = "1" } } }
"""


def test_a_main_diagnosis_beside_numbered_ones_and_their_codes(tmp_path: Path) -> None:
    begin = MAPPING.index('diagnosis_code = "dx"')
    end = MAPPING.index("[[source]]", begin)
    path = write_site(
        tmp_path, MAPPING[:begin] + "[[source.repeated]]" + REPEATED + MAPPING[end:],
        clinical=[f"P{n},2015-06-01,,60,M,0,0" for n in range(4)],
    )  # fmt: skip
    (tmp_path / "encounters.csv").write_text(
        "id,admit,discharge,kind,dx,ND01,ND02,T1,T2\n"
        "P0,2015-06-11,,inpatient,I20.0,,,,\n"  # main diagnosis: unstable angina counts
        "P1,2015-06-11,,inpatient,J18.9,I10,I21.4,N,n\n"  # another diagnosis of the stay
        "P2,2015-06-11,,inpatient,J18.9,I20.0,,N,\n"  # not as another diagnosis
        "P3,2015-06-11,,inpatient,J18.9,I21.4,,V,\n",  # of a type that no rule names
        encoding="utf-8",
    )
    done, parts = link_extracts(path, tmp_path / "w", studies(*((f"P{n}", SCAN) for n in range(4))))
    events = {row["patient_key"]: row["mace_event"] for row in done.linked.to_pylist()}
    assert [events[KEYRING.patient_key(f"P{n}")] for n in range(4)] == [1, 1, 0, 0]
    assert [(u.value, u.rows) for u in unknown_codes(parts, load_outcomes())] == [("V", 1)]
    assert not code_warnings(parts, load_outcomes())


@pytest.mark.parametrize(
    ("old", "new", "reported"),
    [
        ('column = "T{n}"', 'column = "T"', "`T` has no {n} for the number"),
        ('codes = { N = "1" }', 'codes = { N = "1" }, unit = "stone"', "unit 'stone'"),
        (
            'columns = { diagnosis_code = "ND{n:02}", ',
            'columns = { shoe = "a{n}", ',
            "no column sh",
        ),
        (
            '{ constant = "M" }',
            '{ column = "R", codes = { N = "M" } }',
            "two meanings to the code 'N'",
        ),
    ],
)
def test_a_wrong_group_is_reported(old: str, new: str, reported: str, tmp_path: Path) -> None:
    begin = MAPPING.index('diagnosis_code = "dx"')
    end = MAPPING.index("[[source]]", begin)
    assert old in REPEATED
    text = MAPPING[:begin] + "[[source.repeated]]" + REPEATED.replace(old, new) + MAPPING[end:]
    with pytest.raises(UsageError) as caught:
        load_mapping(write_site(tmp_path, text))
    assert reported in str(caught.value)


def test_all_faults_of_a_mapping_are_named_at_once(tmp_path: Path) -> None:
    text = MAPPING.replace("end = 2019-12-31", "").replace('death_date = "died"', "")
    text = text.replace('age_years = "age"', 'shoe = "age"')
    with pytest.raises(UsageError) as caught:
        load_mapping(write_site(tmp_path, text))
    for fault in ("coverage.end", "source clinical: `clinical` has no column shoe",
                  "source deaths: column death_date is not mapped"):  # fmt: skip
        assert fault in str(caught.value)
