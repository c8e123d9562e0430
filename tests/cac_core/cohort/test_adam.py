"""ADSL and ADTTE: hand-worked rows, and rules of the ADaM conformance rules and ADaMIG 1.3."""

from __future__ import annotations

import datetime as dt
import re

import duckdb
import pandas as pd
import pyarrow as pa
import pyreadstat
import pytest

from cac_core.cohort.adam import adsl, adtte
from cac_core.cohort.export_files import write_tables
from cac_core.cohort.outcomes import OutcomeDefinition
from schemas.linked import linked_table

DAY = dt.date(2015, 6, 1)
#: Labels of ADaMIG 1.3, sections 3.2 and 3.3.
STANDARD = {
    "STUDYID": "Study Identifier",
    "USUBJID": "Unique Subject Identifier",
    "SUBJID": "Subject Identifier for the Study",
    "SITEID": "Study Site Identifier",
    "AGE": "Age",
    "AGEU": "Age Units",
    "SEX": "Sex",
    "RACE": "Race",
    "FASFL": "Full Analysis Set Population Flag",
    "PARAM": "Parameter",
    "PARAMCD": "Parameter Code",
    "PARAMN": "Parameter (N)",
    "STARTDT": "Time-to-Event Origin Date for Subject",
    "ADT": "Analysis Date",
    "AVAL": "Analysis Value",
    "CNSR": "Censor",
    "EVNTDESC": "Event or Censoring Description",
    "CNSDTDSC": "Censor Date Description",
}
OUTCOMES = OutcomeDefinition.model_validate(
    {
        "component": {
            "death": {"kind": "death", "description": "death from any cause"},
            "mi": {"kind": "diagnosis", "description": "infarction", "codes": ["I21"]},
            "stent": {"kind": "procedure", "description": "stent", "codes": ["K49"]},
        },
        "outcome": {
            "any": {"description": "any of them", "first_of": ["death", "mi", "stent"]},
            "late": {
                "first_of": ["mi", "stent"],
                "early": {"component": "stent", "days": 90, "rule": "censor"},
            },
            "mi_no_early": {
                "first_of": ["stent", "mi"],
                "early": {"component": "stent", "days": 90, "rule": "blank"},
            },
        },
    }
)
#: Patient: (event, days) of each outcome.
EVENTS = {
    "infarction and stent on day 10": ((1, 10), (1, 10), (1, 10)),
    "early stent, death on day 40": ((1, 20), (0, 20), (0, 40)),
    "nothing": ((0, 500), (0, 500), (0, 500)),
    "left out of the second": ((0, 300), (None, None), (0, 300)),
}
HAPPENED = [
    ("infarction and stent on day 10", "mi", 10),
    ("infarction and stent on day 10", "stent", 10),
    ("early stent, death on day 40", "stent", 20),
    ("early stent, death on day 40", "death", 40),
]


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    spec = linked_table(tuple(OUTCOMES.outcome))
    rows = []
    for number, (patient, found) in enumerate(EVENTS.items()):
        row = dict.fromkeys(spec.arrow_schema.names)
        row |= {"patient_key": patient, "study_date": DAY, "age_years": 60.5, "sex": "M"}
        row |= {"diabetes": number % 2, "cac_category": "1-100", "agatston": 50.0}
        row |= {"needs_review": True, "review_reasons": "device", "follow_up_days": 500}
        for name, (event, days) in zip(OUTCOMES.outcome, found, strict=True):
            row |= {f"{name}_event": event, f"{name}_days": days}
        rows.append(row)
    plain = pa.schema([(column.name, column.type) for column in spec.columns])
    events = pa.Table.from_pylist(
        [{"patient_key": key, "component": name, "days": days} for key, name, days in HAPPENED],
        pa.schema([("patient_key", pa.string()), ("component", pa.string()), ("days", pa.int32())]),
    )
    with duckdb.connect(":memory:") as connection:
        connection.register("linked", pa.Table.from_pylist(rows, plain))
        connection.register("events", events)
        return {
            "adtte": adtte(connection, OUTCOMES, "TEST"),
            "adsl": adsl(connection, "TEST"),
        }


def test_the_component_that_occurred_is_named(tables: dict[str, pa.Table]) -> None:
    found = {
        (row["USUBJID"], row["PARAMCD"]): (row["CNSR"], row["EVNTDESC"], row["CNSDTDSC"])
        for row in tables["adtte"].to_pylist()
    }
    first, second, third, fourth = EVENTS
    assert found == {
        # Of two on one day, the one that the outcome lists first.
        (first, "ANY"): (0, "infarction", None),
        (first, "LATE"): (0, "infarction", None),
        # The early stent is not an event there, whatever the order.
        (first, "MINOEARL"): (0, "infarction", None),
        (second, "ANY"): (0, "stent", None),
        (second, "LATE"): (1, "Censored", "stent"),
        (second, "MINOEARL"): (1, "Censored", "death from any cause"),
        (third, "ANY"): (1, "Censored", "end of follow-up"),
        (third, "LATE"): (1, "Censored", "end of follow-up"),
        (third, "MINOEARL"): (1, "Censored", "end of follow-up"),
        (fourth, "ANY"): (1, "Censored", "end of follow-up"),
        (fourth, "MINOEARL"): (1, "Censored", "end of follow-up"),
    }


def test_subjects_have_one_row_with_coded_values(tables: dict[str, pa.Table]) -> None:
    row = tables["adsl"].to_pylist()[0]
    wanted = {
        "STUDYID": "TEST",
        "AGE": 60.5,
        "AGEU": "YEARS",
        "SEX": "M",
        "SCANDT": DAY,
        "CACCAT": "1-100",
        "CACCATN": 1,
        "EXPCATN": None,
        "REVIEWFL": "Y",
        "REVIEWRS": "device",
        "SMOKEFL": None,
    }
    assert {name: row[name] for name in wanted} == wanted
    flags = {row["USUBJID"]: row["DIABFL"] for row in tables["adsl"].to_pylist()}
    assert [flags[key] for key in EVENTS] == ["N", "Y", "N", "Y"]


@pytest.fixture(scope="module")
def read(
    tables: dict[str, pa.Table], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[pd.DataFrame, dict[str, str]]]:
    """Both data sets as read back from SAS transport version 5, with labels."""
    folder = tmp_path_factory.mktemp("xport")
    paths = write_tables(tables, folder, "xport")
    assert all(path.with_suffix(".sas").is_file() for path in paths)
    found = {}
    for path in paths:
        frame, meta = pyreadstat.read_xport(path)
        assert meta.table_name == path.stem.upper()
        found[path.stem] = frame, dict(meta.column_names_to_labels)
    return found


Read = dict[str, tuple[pd.DataFrame, dict[str, str]]]


def test_ad0001_adsl_is_there_with_one_row_per_subject(read: Read) -> None:
    """ADaM conformance rule AD0001."""
    subjects = read["adsl"][0]["USUBJID"]
    assert subjects.is_unique
    assert set(read["adtte"][0]["USUBJID"]) <= set(subjects)


def test_ad0005_flags_are_y_n_or_null(read: Read) -> None:
    """ADaM conformance rule AD0005; a population flag is there and never null."""
    frame = read["adsl"][0]
    flags = [name for name in frame if name.endswith("FL")]
    assert {value for name in flags for value in frame[name]} <= {"Y", "N", ""}
    assert set(frame["FASFL"]) <= {"Y", "N"}


def test_ad0016_and_ad0018_labels(read: Read) -> None:
    """ADaM conformance rules AD0016 (40 characters) and AD0018 (labels of the standard)."""
    for _, labels in read.values():
        assert all(0 < len(label) <= 40 for label in labels.values())
        for name, label in STANDARD.items():
            assert labels.get(name, label) == label


def test_general_conventions_of_variables(read: Read) -> None:
    """ADaMIG 1.3, 3.1.1: names of 8 characters of A-Z, 0-9 and _, texts of 200 characters."""
    for frame, _ in read.values():
        assert all(re.fullmatch(r"[A-Z][A-Z0-9_]{0,7}", name) for name in frame)
        texts = frame.select_dtypes("object")
        assert max(len(str(value)) for name in texts for value in texts[name]) <= 200


def test_parameters_are_one_to_one_and_codes_are_names(read: Read) -> None:
    """ADaMIG 1.3, 3.3.4."""
    frame = read["adtte"][0]
    pairs = frame[["PARAM", "PARAMCD", "PARAMN"]].drop_duplicates()
    for name in pairs:
        assert pairs[name].is_unique
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]{0,7}", code) for code in pairs["PARAMCD"])
    assert all(text.endswith("(days)") for text in pairs["PARAM"])


def test_times_and_censoring(read: Read) -> None:
    """ADaM BDS for time-to-event analyses 1.0, section 3."""
    frame = read["adtte"][0]
    days = [(end - begin).days for begin, end in zip(frame["STARTDT"], frame["ADT"], strict=True)]
    assert days == frame["AVAL"].tolist()
    assert set(frame["CNSR"]) == {0, 1}
    assert (frame["EVNTDESC"] != "").all()
    assert ((frame["CNSDTDSC"] == "") == (frame["CNSR"] == 0)).all()
