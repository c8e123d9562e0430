"""CDISC ADaM data sets of a linkage: ADSL, one row per subject, and ADTTE, time to each outcome.

Names have at most 8 characters, labels at most 40 and values at most 200, as SAS transport version
5 requires. Labels of standard variables are those of the ADaM Implementation Guide 1.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import duckdb
import pyarrow as pa

from cac_core.cohort.column_names import cut_names
from cac_core.cohort.database import sql_text
from cac_core.cohort.export_columns import annotated
from cac_core.cohort.outcomes import OutcomeDefinition
from schemas.codes import CAC_CATEGORIES
from schemas.registry import READINGS

_NAME, _TEXT = 8, 200
GRADES = next(column for column in READINGS.columns if column.name == "visual_grade").allowed
#: Label of every variable.
LABELS: Mapping[str, str] = {
    "STUDYID": "Study Identifier",
    "USUBJID": "Unique Subject Identifier",
    "SUBJID": "Subject Identifier for the Study",
    "SITEID": "Study Site Identifier",
    "AGE": "Age",
    "AGEU": "Age Units",
    "SEX": "Sex",
    "RACE": "Race",
    "FASFL": "Full Analysis Set Population Flag",
    "SCANDT": "Date of SPECT/CT Scan",
    "BMIBL": "Body Mass Index at Baseline (kg/m2)",
    "HTNFL": "Hypertension Flag",
    "DIABFL": "Diabetes Mellitus Flag",
    "LIPIDFL": "Dyslipidemia Flag",
    "FAMHXFL": "Family History of Premature CAD Flag",
    "SMOKEFL": "Current Smoker Flag",
    "PRMIFL": "Prior Myocardial Infarction Flag",
    "PRPCIFL": "Prior PCI Flag",
    "PRCABGFL": "Prior CABG Flag",
    "TPDSTR": "Total Perfusion Deficit, Stress (%)",
    "TPDREST": "Total Perfusion Deficit, Rest (%)",
    "LVEFSTR": "LV Ejection Fraction after Stress (%)",
    "AGATSTN": "Agatston Score by the Model",
    "CACCAT": "CAC Category by the Model",
    "CACCATN": "CAC Category by the Model (N)",
    "PCAC0": "Probability of CAC Category 0",
    "PCAC1": "Probability of CAC Category 1-100",
    "PCAC101": "Probability of CAC Category 101-400",
    "PCAC401": "Probability of CAC Category >400",
    "AGATLOW": "Agatston Score, Lower 90% Limit",
    "AGATHIGH": "Agatston Score, Upper 90% Limit",
    "REVIEWFL": "Score Needs Review Flag",
    "REVIEWRS": "Reasons for Review of the Score",
    "EXPAGAT": "Agatston Score by the Expert",
    "EXPCAT": "CAC Category by the Expert",
    "EXPCATN": "CAC Category by the Expert (N)",
    "VISGRADE": "Visual Grade of CAC",
    "VISGRADN": "Visual Grade of CAC (N)",
    "FUDURD": "Duration of Follow-up (Days)",
    "PARAMCD": "Parameter Code",
    "PARAM": "Parameter",
    "PARAMN": "Parameter (N)",
    "STARTDT": "Time-to-Event Origin Date for Subject",
    "ADT": "Analysis Date",
    "AVAL": "Analysis Value",
    "CNSR": "Censor",
    "EVNTDESC": "Event or Censoring Description",
    "CNSDTDSC": "Censor Date Description",
}
_CATEGORY_VALUES = dict(enumerate(CAC_CATEGORIES))


def adsl(connection: duckdb.DuckDBPyConnection, study: str) -> pa.Table:
    """The subject-level data set of the view `linked`."""
    macros, query = sql_text("export_adsl").rsplit(";\n", 1)
    connection.execute(macros)
    given = {"study": study, "categories": list(CAC_CATEGORIES), "grades": list(GRADES)}
    rows = connection.sql(query, params=given).to_arrow_table()
    values = {
        "CACCATN": _CATEGORY_VALUES,
        "EXPCATN": _CATEGORY_VALUES,
        "VISGRADN": dict(enumerate(GRADES)),
    }
    return annotated(rows, LABELS, values)


def adtte(
    connection: duckdb.DuckDBPyConnection, outcomes: OutcomeDefinition, study: str
) -> pa.Table:
    """The time-to-event data set of the views `linked` and `events`."""
    names = list(outcomes.outcome)
    for name, table in _definition(outcomes).items():
        connection.register(name, table)
    rows = " UNION ALL ".join(
        f"SELECT patient_key, study_date, '{name}' AS outcome, {name}_event AS event, "
        f"{name}_days AS days FROM linked"
        for name in names
    )
    text = sql_text("export_adtte").replace("{rows}", rows)
    found = connection.sql(text, params={"study": study}).to_arrow_table()
    return annotated(found, LABELS, {"CNSR": {0: "event", 1: "censored"}})


def parameter_codes(outcomes: OutcomeDefinition) -> dict[str, str]:
    """Parameter code of each outcome: capitals and digits of its name, distinct."""
    names = list(outcomes.outcome)
    plain = [re.sub(r"[^A-Z0-9]", "", name.upper()) for name in names]
    return dict(zip(names, cut_names(plain, _NAME), strict=True))


def _definition(outcomes: OutcomeDefinition) -> dict[str, pa.Table]:
    """Tables `parameters`, `components` and `endings` of the query."""
    parameters, components, endings = [], [], []
    deaths = [name for name, item in outcomes.component.items() if item.kind == "death"]
    for number, (outcome, code) in enumerate(parameter_codes(outcomes).items(), start=1):
        item = outcomes.outcome[outcome]
        described = f"Time to {item.description or outcome} (days)"
        parameters.append(
            {"outcome": outcome, "code": code, "description": described[:_TEXT], "number": number}
        )
        for position, component in enumerate(item.first_of):
            components.append(
                _named(outcomes, outcome, component)
                | {
                    "position": position,
                    "early_component": item.early.component if item.early else None,
                    "early_days": item.early.days if item.early else None,
                    "early_rule": item.early.rule if item.early else None,
                }
            )
        ends = [name for name in deaths if name not in item.first_of]
        if item.early and item.early.rule == "censor":
            ends.append(item.early.component)
        endings += [_named(outcomes, outcome, component) for component in ends]
    text, number_type = pa.string(), pa.int32()
    ending = {"outcome": text, "component": text, "description": text}
    early = {"early_component": text, "early_days": number_type, "early_rule": text}
    return {
        "parameters": pa.Table.from_pylist(parameters),
        "components": pa.Table.from_pylist(
            components, pa.schema(ending | {"position": number_type} | early)
        ),
        "endings": pa.Table.from_pylist(endings, pa.schema(ending)),
    }


def _named(outcomes: OutcomeDefinition, outcome: str, component: str) -> dict[str, object]:
    described = outcomes.component[component].description or component
    return {"outcome": outcome, "component": component, "description": described[:_TEXT]}
