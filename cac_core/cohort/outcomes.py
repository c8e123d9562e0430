"""Outcome definitions: which records are events, and which events make up an outcome.

Read from TOML (`outcomes.toml` is the paper's), validated, and passed to SQL as tables.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cac_core.errors import UsageError
from cac_core.tomlfile import faults_of, read_toml
from schemas.registry import DIAGNOSIS_SYSTEMS, PROCEDURE_SYSTEMS

#: Systems whose lists also hold for records that state no system: their codes differ in form. Codes
#: of other systems could be taken for these (ICD-9-CM 02.11 for ICD-10-PCS 0211).
UNSTATED = ("ICD-10", "CCI", "ICD-10-PCS", "OPCS-4")
_SYSTEMS = {"diagnosis": DIAGNOSIS_SYSTEMS, "procedure": PROCEDURE_SYSTEMS}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,60}")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _plain_codes(codes: tuple[str, ...]) -> tuple[str, ...]:
    dotted = [code for code in codes if not re.fullmatch(r"[0-9A-Z]+", code)]
    if dotted:
        raise ValueError(f"write `{dotted[0]}` in upper case, without dots and blanks")
    return codes


Codes = Annotated[tuple[str, ...], AfterValidator(_plain_codes)]


class CodeList(_Section):
    """Codes of one system, as prefixes without dots, and the edition that they are from."""

    codes: Codes = Field(min_length=1)
    source: str = ""


class Component(_Section):
    """One kind of event: a death, a diagnosis or a procedure.

    `systems` has a list of codes for each coding system. It holds for records of that system; those
    of `UNSTATED` hold also for records that state no system. `codes` hold for every record. With
    `types` or `record_types`, only records of these diagnosis types or record types count, and
    records that state none. `omop_concept_id` is the standard concept in OMOP exports; 0 if there
    is none.
    """

    kind: Literal["death", "diagnosis", "procedure"]
    description: str = ""
    codes: Codes = ()
    systems: dict[str, CodeList] = Field(default_factory=dict)
    types: tuple[str, ...] = ()
    record_types: tuple[Literal["inpatient", "emergency", "ambulatory"], ...] = ()
    source: str = ""
    omop_concept_id: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _codes_where_needed(self) -> Component:
        if (self.kind == "death") == bool(self.codes or self.systems):
            raise ValueError("a death has no codes; a diagnosis or procedure needs some")
        known = _SYSTEMS.get(self.kind, ())
        unknown = [system for system in self.systems if system not in known]
        if unknown:
            raise ValueError(f"system `{unknown[0]}` is not one of {', '.join(known)}")
        return self

    @property
    def lists(self) -> list[tuple[str | None, tuple[str, ...]]]:
        """Systems and their codes; None stands for every system."""
        listed: list[tuple[str | None, tuple[str, ...]]] = [(None, self.codes)]
        return listed + [(system, item.codes) for system, item in self.systems.items()]


class Early(_Section):
    """Effect of an event soon after the scan on an outcome.

    `exclude` removes the patient from the outcome; `blank` ignores the component within these days;
    `censor` ends follow-up at the event.
    """

    component: str
    days: int = Field(ge=1)
    rule: Literal["exclude", "blank", "censor"]


class Outcome(_Section):
    """Time to the first of several components."""

    description: str = ""
    first_of: tuple[str, ...] = Field(min_length=1)
    early: Early | None = None


class KnownDisease(_Section):
    """Components that exclude a patient if they occur at or before the scan."""

    components: tuple[str, ...] = ()


class OutcomeDefinition(_Section):
    """A definition file."""

    component: dict[str, Component]
    known_cad: KnownDisease = KnownDisease()
    outcome: dict[str, Outcome] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_fit(self) -> OutcomeDefinition:
        used = [("known_cad", name) for name in self.known_cad.components]
        for outcome, item in self.outcome.items():
            if not _NAME.fullmatch(outcome):
                raise ValueError(
                    f"outcome `{outcome}`: use lower-case letters, digits and underscores"
                )
            used += [(outcome, name) for name in item.first_of]
            used += [(outcome, item.early.component)] if item.early else []
        for place, name in used:
            if name not in self.component:
                raise ValueError(f"{place} names `{name}`, which is not a component")
        return self

    def component_table(self) -> pa.Table:
        """One row per code: `component`, `kind`, `code`, `types`, `record_types`, `system`.

        `system` is null if the code holds for every record; with `if_unstated`, the code also holds
        for records that state no system.
        """
        rows = [
            {
                "component": name,
                "kind": item.kind,
                "code": code,
                "types": [name.upper() for name in item.types],
                "record_types": list(item.record_types),
                "system": system,
                "if_unstated": system is None or system in UNSTATED,
            }
            for name, item in self.component.items()
            for system, codes in item.lists
            for code in codes
        ]
        texts, text = pa.list_(pa.string()), pa.string()
        kinds = {"component": text, "kind": text, "code": text}
        lists = {"types": texts, "record_types": texts}
        systems = {"system": text, "if_unstated": pa.bool_()}
        return pa.Table.from_pylist(rows, pa.schema({**kinds, **lists, **systems}))

    def outcome_table(self) -> pa.Table:
        """Columns `outcome`, `component` and its early rule; one row per pair of these."""
        rows = [
            {
                "outcome": name,
                "component": component,
                "early_component": item.early.component if item.early else None,
                "early_days": item.early.days if item.early else None,
                "early_rule": item.early.rule if item.early else None,
            }
            for name, item in self.outcome.items()
            for component in item.first_of
        ]
        names = ("outcome", "component", "early_component", "early_rule")
        schema = pa.schema({name: pa.string() for name in names} | {"early_days": pa.int32()})
        return pa.Table.from_pylist(rows, schema)


def load_outcomes(path: Path | None = None) -> OutcomeDefinition:
    """Read a definition; by default, the paper's.

    Raises
    ------
    UsageError
        If it cannot be read, or names an undefined component.
    """
    source = path or files("cac_core.cohort").joinpath("outcomes.toml")
    values = read_toml(
        source,
        "The outcome definition",
        "Leave out --outcomes to use the paper's definitions.",
    )
    try:
        return OutcomeDefinition.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            f"The outcome definition {source}: {faults_of(error, OutcomeDefinition)}.",
            "docs/linkage.md describes the file.",
        ) from None
