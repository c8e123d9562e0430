"""Registries and their extracts, linked without Prefect, for tests of single steps."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from cac_core.cohort.canonical import make_part
from cac_core.cohort.database import Resources
from cac_core.cohort.extract_parts import Part, PartStore
from cac_core.cohort.extracts import find_extracts
from cac_core.cohort.link import Linkage, link
from cac_core.cohort.mapping import SiteMapping, load_mapping
from cac_core.cohort.outcomes import OutcomeDefinition, load_outcomes
from cac_core.cohort.warehouse import Warehouse
from cac_core.keys import Keyring
from cac_core.phantom.registry.records import Registry
from cac_core.phantom.registry.scored_archive import scored_archive
from schemas.instance import INSTANCES
from schemas.score import SCORES

KEYRING = Keyring(b"a secret of the tests")
RESOURCES = Resources(memory_limit="1GB", threads=2)

MAPPING = """
site = "test"
[coverage]
end = 2019-12-31
[[source]]
name = "clinical"
table = "clinical"
files = "clinical.csv"
[source.columns]
patient_id = "id"
study_date = "scan"
accession_number = "accession"
age_years = "age"
sex = "sex"
diabetes = "diabetes"
prior_mi = "prior_mi"
[[source]]
name = "encounters"
table = "encounters"
files = "encounters.csv"
[source.columns]
patient_id = "id"
admit_date = "admit"
discharge_date = "discharge"
record_type = "kind"
diagnosis_code = "dx"
diagnosis_type = "role"
procedure_code = "px"
procedure_date = "px_date"
[[source]]
name = "deaths"
table = "deaths"
files = "deaths.csv"
[source.columns]
patient_id = "id"
death_date = "died"
[[source]]
name = "follow_up"
table = "follow_up"
files = "follow_up.csv"
[source.columns]
patient_id = "id"
coverage_end = "until"
emigration_date = "moved"
"""
HEADERS = {
    "clinical": "id,scan,accession,age,sex,diabetes,prior_mi",
    "encounters": "id,admit,discharge,kind,dx,role,px,px_date",
    "deaths": "id,died",
    "follow_up": "id,until,moved",
}


def write_site(folder: Path, mapping: str = MAPPING, **tables: Sequence[str]) -> Path:
    """Write the four small CSV files of `MAPPING` from their lines; gives the mapping."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, header in HEADERS.items():
        lines = "\n".join([header, *tables.get(name, ())]) + "\n"
        (folder / f"{name}.csv").write_text(lines, encoding="utf-8")
    path = folder / "site.toml"
    path.write_text(mapping, encoding="utf-8")
    return path


def make_parts(path: Path, warehouse: Path) -> tuple[SiteMapping, list[Part]]:
    """Every part of a mapping's extracts."""
    mapping = load_mapping(path)
    store = PartStore(warehouse, warehouse / "_staging" / "linkage")
    parts = [
        make_part(extract, mapping, store, RESOURCES)
        for source in mapping.source
        for extract in find_extracts(source, path.parent)
    ]
    return mapping, parts


def link_extracts(
    path: Path,
    warehouse: Path,
    scores: pa.Table,
    accessions: pa.Table | None = None,
    outcomes: OutcomeDefinition | None = None,
) -> tuple[Linkage, list[Part]]:
    """Canonical parts and the linkage of them."""
    mapping, parts = make_parts(path, warehouse)
    nothing = pa.table({n: pa.array([], pa.string()) for n in ("study_key", "accession_key")})
    done = link(
        parts,
        scores,
        nothing if accessions is None else accessions,
        mapping,
        outcomes or load_outcomes(),
        KEYRING,
        RESOURCES,
    )
    return done, parts


def studies(*rows: tuple[str, dt.date]) -> pa.Table:
    """Scored studies: patient and date, each with an Agatston score of 50."""
    n = len(rows)
    return pa.table(
        {
            "study_key": pa.array([KEYRING.study_key(f"1.2.{at}") for at in range(n)], pa.string()),
            "patient_key": pa.array([KEYRING.patient_key(who) for who, _ in rows], pa.string()),
            "study_date": pa.array([date for _, date in rows], pa.date32()),
            "status": pa.array(["scored"] * n, pa.string()),
            "reason": pa.nulls(n, pa.string()),
            "agatston": pa.array([50.0] * n, pa.float64()),
            "cac_category": pa.array(["1-100"] * n, pa.string()),
        }
    )


def fill_warehouse(folder: Path, registry: Registry, keyring: Keyring) -> Warehouse:
    """A warehouse that holds the scores and instances of a registry's archive."""
    store, archive = Warehouse(folder), scored_archive(registry, keyring, seed=1)
    store.replace(SCORES, archive.scores, "test-1")
    store.replace(INSTANCES, archive.instances)
    return store
