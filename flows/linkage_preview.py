"""`cac link --dry-run`: what a linkage would read, set aside and warn of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cac_core.cohort.canonical import make_part
from cac_core.cohort.database import database
from cac_core.cohort.extract_parts import Part, PartStore
from cac_core.cohort.extract_rows import head_of
from cac_core.cohort.extracts import Extract
from cac_core.cohort.gaps import require_clinical_rows
from cac_core.cohort.link import Linkage, link
from cac_core.cohort.link_checks import (
    empty_because,
    n_matches,
    require_matches,
    require_usable,
)
from cac_core.cohort.remedies import set_aside
from cac_core.cohort.scores import scores_of, study_identifiers
from cac_core.cohort.set_aside import SetAside
from cac_core.cohort.unknown_codes import UnknownCode, unknown_codes
from cac_core.errors import CacError, UsageError
from flows.linkage import PreparedLinkage, prepare_linkage
from flows.linkage_counts import match_rows
from flows.linkage_summaries import ExtractFile, LinkageDryRun, UnknownCodeCount
from flows.linkage_warnings import input_warnings
from flows.quarantine import in_quarantine
from flows.request import LinkageRequest
from flows.summaries import Rows
from schemas.instance import INSTANCES
from schemas.linkage import QUARANTINE

#: Larger files are read only up to this line.
_WHOLE_BYTES = 100 << 20
_SAMPLE_LINES = 200_000
_PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst", ".lzma", ".parquet")
#: Typical compression of extracts.
_PACKING = 8


@dataclass
class _Preview:
    """What reading the extracts has shown."""

    parts: list[Part] = field(default_factory=list)
    extracts: list[ExtractFile] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    unknown_codes: list[UnknownCode] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    matches: Rows = field(default_factory=list)


def dry_run(request: LinkageRequest) -> LinkageDryRun:
    """Read the extracts, or the first lines of large ones, and publish nothing.

    If they were read whole they are also linked, to count matches and what the linkage itself sets
    aside; if only the clinical files were, these are matched.

    Raises
    ------
    CacError
        As `prepare_linkage`.
    """
    prepared = prepare_linkage(request)
    with database(prepared.resources) as (_, scratch):
        seen = _read(prepared, scratch)
    shown = prepared.disclosure
    return LinkageDryRun(
        warehouse=prepared.warehouse.url,
        model=prepared.model_id,
        site=prepared.mapping.site,
        outcomes=list(prepared.outcomes.outcome),
        extracts=seen.extracts,
        set_aside=seen.set_aside,
        unknown_codes=[
            UnknownCodeCount(code.source, code.kind, code.value, shown.single(code.rows))
            for code in seen.unknown_codes
        ],
        warnings=seen.warnings,
        stops=seen.stops,
        matches=seen.matches,
    )


def _read(prepared: PreparedLinkage, scratch: Path) -> _Preview:
    """Canonical parts in a private folder that the caller removes."""
    store = PartStore(scratch / "parts", scratch / "parts")
    seen = _Preview()
    for number, extract in enumerate(prepared.extracts):
        own = scratch / f"extract-{number}"
        own.mkdir()
        head = extract if _is_small(extract) else head_of(extract, own, _SAMPLE_LINES)
        whole = head is extract
        try:
            part = make_part(head, prepared.mapping, store, prepared.resources)
        except UsageError as error:
            seen.stops.append(str(error))
            seen.extracts.append(_file(extract, None, str(error), whole=whole))
            continue
        seen.parts.append(part)
        seen.extracts.append(_file(extract, part, None, whole=whole))
    parts = seen.parts
    seen.stops += _over_limit(parts, prepared.mapping.rules.quarantine_limit)
    bad = [pq.ParquetFile(part.quarantine).read() for part in parts]
    if _is_clinical_read(seen):
        bad += _link(prepared, seen)
    aside = pa.concat_tables(bad) if bad else QUARANTINE.empty()
    lines = in_quarantine(aside)
    seen.extracts = [
        replace(file, in_quarantine=lines.get(file.label, 0)) for file in seen.extracts
    ]
    formats = {source.name: source.dates for source in prepared.mapping.source}
    seen.set_aside = set_aside(aside, formats)
    seen.unknown_codes = unknown_codes(parts, prepared.outcomes)
    return seen


def _is_clinical_read(seen: _Preview) -> bool:
    """Whether every clinical file could be read, at least in part."""
    return not any(file.table == "clinical" and file.fault for file in seen.extracts)


def _link(prepared: PreparedLinkage, seen: _Preview) -> list[pa.Table]:
    """Check what the linkage checks, on what was read; gives what it would set aside itself."""
    store = prepared.warehouse
    scores = scores_of(store, prepared.model_id, prepared.settings.protocol.digest)
    seen.warnings += input_warnings(prepared, seen.parts, scores)
    clinical = [part for part in seen.parts if part.extract.source.table == "clinical"]
    try:
        require_clinical_rows(clinical)
    except CacError as error:
        seen.stops.append(_of_a_dry_run(error))
        return []
    sampled = {file.label for file in seen.extracts if not file.whole}
    in_full = not sampled and not seen.stops
    parts = seen.parts if in_full else clinical
    mapping, keyring = prepared.mapping, prepared.keyring
    identifiers = study_identifiers(store.read(INSTANCES))
    linkage = link(
        parts, scores, identifiers, mapping, prepared.outcomes, keyring, prepared.resources
    )
    if sampled & {part.extract.label for part in clinical}:
        seen.warnings += _match_estimate(linkage)
        return []
    seen.matches = match_rows(linkage.matches, prepared.disclosure)
    known = store.fingerprint() is not None
    checked = (parts, scores, linkage, mapping.rules, keyring)
    try:
        require_matches(*checked, secret_known=known)
        if in_full and (why := empty_because(*checked)):
            seen.stops.append(f"The cohort would be empty: {'; '.join(why)}.")
    except CacError as error:
        seen.stops.append(_of_a_dry_run(error))
    return [linkage.quarantine] if in_full else []


def _match_estimate(linkage: Linkage) -> list[str]:
    """A warning if nothing of a sample of the clinical rows matches.

    The share that must match cannot be judged from a sample: the studies of the rows left out are
    missing from it.
    """
    rows = pc.sum(linkage.matches["n_rows"]).as_py() or 0
    if n_matches(linkage):
        return []
    return [
        f"none of the first {rows} clinical rows matches a study; if that holds for all rows, the "
        "linkage stops"
    ]


def _of_a_dry_run(error: CacError) -> str:
    return error.what.removesuffix(" The published tables are unchanged.")


def _is_small(extract: Extract) -> bool:
    size = extract.path.stat().st_size
    packed = extract.path.suffix.lower() in _PACKED
    return size * (_PACKING if packed else 1) <= _WHOLE_BYTES


def _file(extract: Extract, part: Part | None, fault: str | None, *, whole: bool) -> ExtractFile:
    source = extract.source
    return ExtractFile(
        source=source.name,
        file=extract.path.name,
        table=source.table,
        label=extract.label,
        whole=whole,
        lines=part.n_lines if part else 0,
        rows=part.n_rows if part else 0,
        unusable=part.n_unusable if part else 0,
        fault=fault,
    )


def _over_limit(parts: Sequence[Part], limit: float) -> list[str]:
    """Why sources have too many unusable lines or cells."""
    by_source: dict[str, list[Part]] = {}
    for part in parts:
        by_source.setdefault(part.extract.source.name, []).append(part)
    found = []
    for of_source in by_source.values():
        try:
            require_usable(of_source, limit)
        except CacError as error:
            found.append(_of_a_dry_run(error))
    return found
