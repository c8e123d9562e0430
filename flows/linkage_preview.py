"""`cac link --dry-run`: what a linkage would read, set aside and warn of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cac_core.cohort.canonical import make_part
from cac_core.cohort.database import database
from cac_core.cohort.extract_parts import Part, PartStore
from cac_core.cohort.extract_rows import head_of
from cac_core.cohort.extracts import Extract
from cac_core.cohort.link_checks import require_usable
from cac_core.cohort.remedies import set_aside
from cac_core.cohort.set_aside import SetAside
from cac_core.cohort.unknown_codes import UnknownCode, code_warnings, unknown_codes
from cac_core.errors import CacError, UsageError
from flows.linkage import PreparedLinkage, prepare_linkage
from flows.request import LinkageRequest
from flows.summaries import ExtractFile, LinkageDryRun, UnknownCodeCount
from schemas.linkage import QUARANTINE

#: Larger files are read only up to this line.
_WHOLE_BYTES = 100 << 20
_SAMPLE_LINES = 200_000
_PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst", ".lzma", ".parquet")
#: Typical compression of extracts.
_PACKING = 8


@dataclass(frozen=True)
class _Preview:
    """What reading the extracts has shown."""

    extracts: list[ExtractFile]
    set_aside: list[SetAside]
    unknown_codes: list[UnknownCode]
    warnings: list[str]
    stops: list[str]


def dry_run(request: LinkageRequest) -> LinkageDryRun:
    """Read the extracts, or the first lines of large ones, and publish nothing.

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
    )


def _read(prepared: PreparedLinkage, scratch: Path) -> _Preview:
    """Canonical parts in a private folder that the caller removes."""
    store = PartStore(scratch / "parts", scratch / "parts")
    parts: list[Part] = []
    extracts: list[ExtractFile] = []
    stops: list[str] = []
    for number, extract in enumerate(prepared.extracts):
        own = scratch / f"extract-{number}"
        own.mkdir()
        head = extract if _is_small(extract) else head_of(extract, own, _SAMPLE_LINES)
        whole = head is extract
        try:
            part = make_part(head, prepared.mapping, store, prepared.resources)
        except UsageError as error:
            stops.append(str(error))
            extracts.append(_file(extract, None, str(error), whole=whole))
            continue
        parts.append(part)
        extracts.append(_file(extract, part, None, whole=whole))
    stops += _over_limit(parts, prepared.mapping.rules.quarantine_limit)
    bad = [pq.ParquetFile(part.quarantine).read() for part in parts]
    return _Preview(
        extracts,
        set_aside(pa.concat_tables(bad) if bad else QUARANTINE.empty()),
        unknown_codes(parts, prepared.outcomes),
        code_warnings(parts, prepared.outcomes),
        stops,
    )


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
            found.append(error.what.removesuffix(" The published tables are unchanged."))
    return found
