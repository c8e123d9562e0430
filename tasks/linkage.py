"""Prefect tasks of the linkage: an extract becomes a part, the parts become one row per patient."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from cac_core.cohort.canonical import Part, PartStore, Resources, make_part
from cac_core.cohort.extracts import Extract
from cac_core.cohort.link import Linkage, link
from cac_core.cohort.mapping import SiteMapping
from cac_core.cohort.outcomes import OutcomeDefinition
from cac_core.keys import Keyring
from tasks.step import step


@step("canonical-part")
def canonical_part(
    extract: Extract, mapping: SiteMapping, store: PartStore, resources: Resources
) -> Part:
    """Canonical rows of one file; a file that was read before is not read again."""
    return make_part(extract, mapping, store, resources)


@step("link-patients")
def link_patients(
    parts: Sequence[Part],
    scores: pa.Table,
    accessions: pa.Table,
    mapping: SiteMapping,
    outcomes: OutcomeDefinition,
    keyring: Keyring,
    resources: Resources,
) -> Linkage:
    """Scores and canonical tables to one analysis row per patient."""
    return link(parts, scores, accessions, mapping, outcomes, keyring, resources)
