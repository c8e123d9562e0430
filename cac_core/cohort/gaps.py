"""What the extracts lack as a whole: tables without a row, covariates that no source gives.

Each row of such an extract is valid, so nothing goes to quarantine; the result is wrong in silence.
"""

from __future__ import annotations

from collections.abc import Sequence

from cac_core.cohort.extract_parts import Part
from cac_core.cohort.mapping import SiteMapping
from cac_core.errors import CacError
from schemas.registry import CLINICAL, PERFUSION

#: What a table without a row costs.
_COSTS = {
    "perfusion": "all its covariates are missing",
    "encounters": "no diagnosis or procedure can become an event",
    "deaths": "no death can become an event or end a follow-up",
    "follow_up": "everybody counts as followed to the end of coverage",
    "readings": "no reading can be compared with the scores",
}
#: Columns by which patients with known disease leave the cohort.
PRIOR_DISEASE = {"prior_mi": "infarction", "prior_pci": "PCI", "prior_cabg": "bypass surgery"}
#: Covariates that are computed, from columns that must all be mapped.
_COMPUTED = {"age_years": {"birth_date"}, "bmi_kg_m2": {"weight_kg", "height_cm"}}


def require_clinical_rows(parts: Sequence[Part]) -> None:
    """Check that the clinical table has rows at all.

    Raises
    ------
    CacError
        If its files have no row after the header, or none that can be used.
    """
    clinical = [part for part in parts if part.extract.source.table == "clinical"]
    if not clinical or any(part.n_rows for part in clinical):
        return
    names = ", ".join(dict.fromkeys(part.extract.source.name for part in clinical))
    lines = sum(part.n_lines - part.n_blank for part in clinical)
    given = f"none of its {lines} lines gives a row" if lines else "it has a header only"
    raise CacError(
        f"The clinical table of source {names} has no row ({given}), so nobody can be linked. "
        "The published tables are unchanged.",
        "Request the extract again, or correct `files`"
        + (" and `rows_with`" if lines else "")
        + f" of `{names}` in the mapping.",
    )


def empty_tables(parts: Sequence[Part]) -> list[str]:
    """Warnings about sources, or single files of them, that give no row of their table."""
    by_source: dict[str, list[Part]] = {}
    for part in parts:
        by_source.setdefault(part.extract.source.name, []).append(part)
    filled = {part.extract.source.table for part in parts if part.n_rows}
    warnings = []
    for name, of_source in by_source.items():
        empty = [part for part in of_source if not part.n_rows]
        table = of_source[0].extract.source.table
        if not empty or table not in _COSTS:
            continue
        where = f"the {table} table of source {name}"
        if len(empty) < len(of_source):
            labels = ", ".join(part.extract.label for part in empty)
            warnings.append(f"{where} has no row from {labels}: is the extract complete?")
            continue
        lines = sum(part.n_lines - part.n_blank for part in empty)
        read = f" (of {lines} lines)" if lines else ""
        cost = f": {_COSTS[table]}" if table not in filled else ", but another source has some"
        warnings.append(f"{where} has no row{read}{cost}")
    return warnings


def absent_covariates(mapping: SiteMapping, modelled: Sequence[str]) -> list[str]:
    """Warnings about covariates that no source of a mapping gives.

    Parameters
    ----------
    modelled : columns of `linked` that the models of the plan use.
    """
    given = {name for source in mapping.source for name, _ in source.mapped}
    given |= {name for name, inputs in _COMPUTED.items() if inputs <= given}
    warnings = []
    prior = [name for name in PRIOR_DISEASE if name not in given]
    if prior:
        diseases = _either([PRIOR_DISEASE[name] for name in prior])
        warnings.append(
            f"no source gives {_either(prior)}: patients with an earlier {diseases} are NOT "
            "excluded unless a registry record before the scan shows it; name the column in "
            "`[source.columns]` of the clinical table, or ask the registry for it"
        )
    required = [name for name in mapping.rules.required if name not in given]
    if required:
        warnings.append(
            f"no source gives {', '.join(required)}, without which `rules.required` excludes "
            "every patient"
        )
    known = [c.name for c in (*CLINICAL.columns, *PERFUSION.columns)]
    unmodelled = [
        name for name in known if name in modelled and name not in {*given, *prior, *required}
    ]
    if unmodelled:
        warnings.append(
            f"no source gives {', '.join(unmodelled)}: the models of the plan leave out what "
            "they are to adjust for"
        )
    return warnings


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
