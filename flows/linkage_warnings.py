"""What a linkage warns of, from its inputs alone: the same for `cac link` and its dry run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from cac_core.analysis.plan import load_plan
from cac_core.cohort.extract_parts import Part
from cac_core.cohort.gaps import absent_covariates, empty_tables
from cac_core.cohort.link_checks import linkage_warnings
from cac_core.cohort.overlap import rewritten_identifiers
from cac_core.cohort.unknown_codes import code_warnings
from cac_core.errors import UsageError
from cac_core.keys import ignored_secret
from cac_core.settings import Settings

if TYPE_CHECKING:
    from flows.linkage import PreparedLinkage


def input_warnings(prepared: PreparedLinkage, parts: Sequence[Part], scores: pa.Table) -> list[str]:
    """Properties of mapping and extracts that stop nothing, but make the result incomplete.

    Parameters
    ----------
    parts : where they lie before they are published.
    """
    shadowed = ignored_secret(prepared.settings.key_file)
    return [
        *([shadowed] if shadowed else []),
        *empty_tables(parts),
        *absent_covariates(prepared.mapping, _modelled(prepared.settings)),
        *linkage_warnings(prepared.mapping, parts, scores),
        *rewritten_identifiers(parts, scores, prepared.keyring).described(),
        *code_warnings(parts, prepared.outcomes),
    ]


def _modelled(settings: Settings) -> list[str]:
    """Columns of `linked` that the models of the site's plan use."""
    with contextlib.suppress(UsageError):  # `cac analyse` reports an invalid plan
        return [term.source for term in load_plan(settings.analysis.plan).covariates]
    return []
