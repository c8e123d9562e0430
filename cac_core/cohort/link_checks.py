"""Checks that stop a linkage before it replaces tables, and warnings about its inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cac_core.cohort.extract_parts import Part
from cac_core.cohort.link import Linkage
from cac_core.cohort.linked import exclusions
from cac_core.cohort.mapping import Rules, SiteMapping
from cac_core.cohort.overlap import overlap, rewritten_identifiers
from cac_core.errors import CacError
from cac_core.keys import Keyring

#: A registry whose newest record is this much older than its stated end was extracted early.
_SILENT_DAYS = 180
_SHOWN_FAULTS = 5


def require_usable(parts: Sequence[Part], limit: float) -> None:
    """Check the parts of one source; blank lines do not count.

    Parameters
    ----------
    limit : largest share of unusable lines, from 0 to 1.

    Raises
    ------
    CacError
        If the share of unusable lines is above the limit, or more than half of the cells of a
        column are unusable.
    """
    bad = sum(part.n_unusable - part.n_blank for part in parts)
    total = sum(part.n_lines - part.n_blank for part in parts)
    if bad <= limit * total:
        _require_columns(parts, total)
        return
    faults: Counter[tuple[str | None, str]] = Counter()
    for part in parts:
        faults.update(part.faults)
    listed = ", ".join(
        f"{reason}{f' in {column}' if column else ''} {n}"
        for (column, reason), n in faults.most_common(_SHOWN_FAULTS)
    )
    source = parts[0].extract.source
    raise CacError(
        f"Source {source.name}: {bad} of {total} lines are unusable, more than the limit of "
        f"{limit:.0%}: {listed}. The published tables are unchanged.",
        "`cac quarantine` shows the reasons and what to change (file, line and reason of each are "
        f"in {parts[0].quarantine.parent}); correct the mapping of `{source.name}`, or raise "
        "`rules.quarantine_limit`.",
    )


def _require_columns(parts: Sequence[Part], total: int) -> None:
    """Check that no column loses most of its cells: then the mapping is wrong, not the data."""
    cells: Counter[str] = Counter()
    reasons = {}
    for part in parts:
        for (column, reason), n in part.cells.items():
            cells[str(column)] += n
            reasons[str(column)] = reason
    for column, n in cells.most_common(1):
        if 2 * n > total:
            source = parts[0].extract.source
            raise CacError(
                f"Source {source.name}: {n} of {total} cells of `{column}` are unusable "
                f"({reasons[column]}). The published tables are unchanged.",
                "`cac quarantine` shows the reasons and what to change (line and shape of each are "
                f"in {parts[0].quarantine.parent}); correct the mapping of `{source.name}`.",
            )


def require_matches(
    parts: Sequence[Part],
    scores: pa.Table,
    linkage: Linkage,
    rules: Rules,
    keyring: Keyring,
    *,
    secret_known: bool,
) -> None:
    """Check that registry and archive share patients.

    Parameters
    ----------
    secret_known : whether the secret is certainly that of the scores.

    Raises
    ------
    CacError
        If the share of matched clinical rows is below `rules.min_match_rate`.
    """
    found = overlap(parts, scores, linkage.matches, rules.window_days)
    if found.rate >= rules.min_match_rate:
        return
    why = _mismatch_reasons(parts, scores, linkage, rules, keyring, secret_known=secret_known)
    correct = "the mapping or the extract" if secret_known else "the secret, mapping or extract"
    raise CacError(
        f"{found.matched} of {_clinical_rows(parts)} clinical rows match a study "
        f"({scores.num_rows} in the archive), less than the limit of {rules.min_match_rate:.0%}: "
        f"{'; '.join(why)}. The published tables are unchanged.",
        f"Correct {correct} (docs/linkage.md explains the reasons); if so few really belong "
        "together, lower `rules.min_match_rate`.",
    )


def empty_because(
    parts: Sequence[Part], scores: pa.Table, linkage: Linkage, rules: Rules, keyring: Keyring
) -> list[str]:
    """Why no patient is in the analysis, without any reason if there are some.

    The parameters are those of `require_matches`, with the secret of the scores.
    """
    if linkage.linked.num_rows:
        return []
    if n_matches(linkage):
        return exclusions(linkage.flow)
    why = _mismatch_reasons(parts, scores, linkage, rules, keyring, secret_known=True)
    return ["no patient of the registry matches a study", *why]


def n_matches(linkage: Linkage) -> int:
    """Number of clinical rows that match a study."""
    ways = ("n_by_key_and_date", "n_by_accession")
    return sum(pc.sum(linkage.matches[way]).as_py() or 0 for way in ways)


def _mismatch_reasons(
    parts: Sequence[Part],
    scores: pa.Table,
    linkage: Linkage,
    rules: Rules,
    keyring: Keyring,
    *,
    secret_known: bool,
) -> list[str]:
    """Why no or few clinical rows match a study; parameters as for `require_matches`."""
    rows = _clinical_rows(parts)
    if not rows:
        return ["the clinical table has no usable row"]
    if not overlap(parts, scores, linkage.matches, rules.window_days).possible:
        return ["no clinical row is from the period of the archive"]
    is_clinical = pc.equal(linkage.quarantine["table"], "clinical")
    doubtful = Counter(linkage.quarantine.filter(is_clinical)["reason"].to_pylist())
    why = rewritten_identifiers(parts, scores, keyring).described()
    if not why and 2 * doubtful.total() < rows:
        why = ["the extract may be another site's"]
        if not secret_known:
            why.append("the secret may differ from the one that the archive was scored with")
    return why + [f"{n} rows are in quarantine as {reason}" for reason, n in doubtful.most_common()]


def _clinical_rows(parts: Sequence[Part]) -> int:
    return sum(part.n_rows for part in parts if part.extract.source.table == "clinical")


def linkage_warnings(mapping: SiteMapping, parts: Sequence[Part], scores: pa.Table) -> list[str]:
    """Properties of the inputs that break no row, but make the result incomplete."""
    end = mapping.coverage.end
    warnings = []
    late = pc.sum(pc.greater(scores["study_date"], pa.scalar(end))).as_py() or 0
    if late:
        warnings.append(
            f"{late} studies are newer than the registry's coverage end ({end}) and have no "
            "follow-up; fetch a newer extract and move `coverage.end`"
        )
    unread = sum(
        n
        for part in parts
        for (column, _), n in part.cells.items()
        if column is not None and column.startswith("prior_")
    )
    if unread:
        warnings.append(
            f"{unread} cells of prior_mi, prior_pci or prior_cabg could not be read; these "
            "patients count as free of that disease unless a registry record shows it"
        )
    return warnings + _early_extracts(mapping, parts)


def _early_extracts(mapping: SiteMapping, parts: Sequence[Part]) -> list[str]:
    end = mapping.coverage.end
    warnings = []
    for source in mapping.source:
        dates = [
            part.newest
            for part in parts
            if part.extract.source.name == source.name and part.newest is not None
        ]
        if dates and (end - max(dates)).days > _SILENT_DAYS:
            warnings.append(
                f"the newest record of source {source.name} is of {max(dates):%Y-%m}, but coverage "
                f"ends on {end}; if the extract is older, move `coverage.end` back, or events "
                "after the extract count as absent"
            )
    return warnings
