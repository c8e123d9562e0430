"""The registry linkage: extracts to canonical tables, joined with scores, outcomes and flow."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from prefect import State, flow

from cac_core.cohort.canonical import make_part, part_digest, without_forgotten
from cac_core.cohort.database import Resources
from cac_core.cohort.disclosure import Disclosure
from cac_core.cohort.extract_parts import Part, PartStore
from cac_core.cohort.extract_rows import check_header
from cac_core.cohort.extracts import Extract, find_extracts
from cac_core.cohort.fingerprint import keep_fingerprint, require_same_secret
from cac_core.cohort.forgotten import Forgotten
from cac_core.cohort.gaps import require_clinical_rows
from cac_core.cohort.link import Linkage, check_rules, link, linkage_digest
from cac_core.cohort.link_checks import (
    empty_because,
    n_matches,
    require_matches,
    require_usable,
)
from cac_core.cohort.linked import read_linked
from cac_core.cohort.mapping import Rules, SiteMapping, load_mapping
from cac_core.cohort.outcomes import OutcomeDefinition, load_outcomes
from cac_core.cohort.scores import chosen_model, scores_of, study_identifiers
from cac_core.cohort.unknown_codes import UnknownCode, unknown_codes
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import UsageError
from cac_core.keys import Keyring
from cac_core.model.weights import model_id_of
from cac_core.settings import Settings
from flows.linkage_counts import extract_summary, flow_counts, match_rows
from flows.linkage_summaries import LinkageSummary, OutcomeCount, UnknownCodeCount
from flows.linkage_warnings import input_warnings
from flows.quarantine import in_quarantine
from flows.request import LinkageRequest, open_warehouse, read_settings, schedule_of, site_keyring
from flows.runtime.attempts import attempted
from flows.runtime.progress import RunProgress, current_progress
from flows.runtime.stamp import RunStamp
from flows.runtime.states import concluded, follow
from schemas.instance import INSTANCES
from schemas.linkage import EVENTS, FLOW, LINKAGES, MATCHES, QUARANTINE
from schemas.linked import linked_table
from tasks.step import step

_LIBRARIES = ("prefect", "duckdb", "pyarrow", "pandera")

_make_part = step("canonical-part")(make_part)
_link_patients = step("link-patients")(link)


@dataclass(frozen=True)
class PreparedLinkage:
    """A checked request: mapping, extracts and scores exist and fit each other."""

    warehouse: Warehouse
    parts: PartStore
    settings: Settings
    keyring: Keyring
    mapping: SiteMapping
    outcomes: OutcomeDefinition
    extracts: tuple[Extract, ...]
    model_id: str
    disclosure: Disclosure

    @property
    def resources(self) -> Resources:
        """Limits of DuckDB."""
        wanted = self.settings.linkage
        threads = wanted.threads or len(os.sched_getaffinity(0))
        return Resources(wanted.memory_limit, threads, wanted.scratch)


def prepare_linkage(request: LinkageRequest) -> PreparedLinkage:
    """Check a request and open what it names; writes nothing.

    Raises
    ------
    CacError
        For the first fault: settings, mapping, outcome definition, secret, scores, or an extract
        that is missing or lacks a column.
    """
    settings = read_settings(request.config)
    options = settings.linkage
    path = Path(request.mapping) if request.mapping else options.mapping
    if path is None:
        raise UsageError(
            "No mapping is named.",
            "Give --mapping FILE, or set `linkage.mapping` in cac.toml; `cac link --propose "
            "EXTRACT` drafts one.",
        )
    mapping = load_mapping(path)
    check_rules(mapping.rules)
    outcomes = load_outcomes(Path(request.outcomes) if request.outcomes else options.outcomes)
    warehouse = open_warehouse(request.warehouse, settings)
    keyring = site_keyring(settings, warehouse)
    parts = warehouse.parts(options.registry)
    wanted = request.model or options.model
    model = chosen_model(warehouse, None if wanted is None else model_id_of(wanted))
    warehouse.check_writable()
    suppress = options.suppress_small_cells if request.suppress is None else request.suppress
    return PreparedLinkage(
        warehouse=warehouse,
        parts=parts,
        settings=settings,
        keyring=keyring,
        mapping=mapping,
        outcomes=outcomes,
        extracts=_checked_extracts(mapping, path.parent),
        model_id=model,
        disclosure=Disclosure(suppress),
    )


def _checked_extracts(mapping: SiteMapping, base: Path) -> tuple[Extract, ...]:
    """Files of all sources, whose headers have the columns of the mapping.

    Raises
    ------
    UsageError
        With the faults of all sources: an analyst corrects them in one go.
    """
    extracts: list[Extract] = []
    faults: list[UsageError] = []
    for source in mapping.source:
        try:
            found = find_extracts(source, base)
        except UsageError as error:
            faults.append(error)
            continue
        extracts += found
        for extract in found:
            try:
                check_header(extract)
            except UsageError as error:
                faults.append(error)
    if len(faults) > 1:
        hints = dict.fromkeys(fault.hint for fault in faults if fault.hint)
        raise UsageError(" ".join(fault.what for fault in faults), " ".join(hints))
    if faults:
        raise faults[0]
    return tuple(extracts)


def link_cohort(request: LinkageRequest) -> LinkageSummary:
    """Link, in a flow or without Prefect; a scheduled run is followed by the report, if wanted."""
    schedule = schedule_of(request.config, request.scheduled)
    summary = attempted(lambda: _link_now(request), schedule)
    if schedule is None or not schedule.report_after_link or summary.empty_because:
        return summary
    from flows.report import cohort_report, report_cohort

    place = {"warehouse": request.warehouse, "config": request.config, "scheduled": True}
    followed = follow(cohort_report, report_cohort, **place)
    return dataclasses.replace(summary, followed_by=followed)


def _link_now(request: LinkageRequest) -> LinkageSummary:
    prepared = prepare_linkage(request)
    with prepared.warehouse.lock():
        return _link(prepared, current_progress())


@flow(name="registry-linkage", persist_result=False, validate_parameters=False)
def registry_linkage(
    warehouse: str | None = None,
    config: str | None = None,
    mapping: str | None = None,
    outcomes: str | None = None,
    model: str | None = None,
    suppress: bool | None = None,
    scheduled: bool = False,
) -> LinkageSummary | State[LinkageSummary]:
    """Link the scores of a warehouse with the extracts that a mapping names.

    Parameters
    ----------
    warehouse, config, mapping, outcomes, model : as the options of `cac link`.
    suppress : hide small counts in the summary and its artifact; the tables keep them.
    scheduled : wait for the warehouse, try again, and report afterwards, as the settings say.

    Returns
    -------
    The summary that `cac link --json` prints; for an empty cohort, a state that holds it.
    """
    request = LinkageRequest(warehouse, config, mapping, outcomes, model, suppress, scheduled)
    return concluded("registry-linkage", lambda: link_cohort(request))


class _Inputs(NamedTuple):
    """What a linkage depends on; the leading parameters of `link` and `linkage_digest`."""

    parts: Sequence[Part]
    scores: pa.Table
    accessions: pa.Table
    mapping: SiteMapping
    outcomes: OutcomeDefinition
    keyring: Keyring


class _Notes(NamedTuple):
    """What a linkage tells beside its tables."""

    codes: Sequence[UnknownCode]
    warnings: list[str]
    empty_because: list[str]


def _link(prepared: PreparedLinkage, progress: RunProgress) -> LinkageSummary:
    """Link where an input has changed since the last run, and publish the tables."""
    stamp, store = RunStamp(), prepared.warehouse
    parts = _read_extracts(prepared, progress)
    scores = scores_of(store, prepared.model_id, prepared.settings.protocol.digest)
    identifiers = study_identifiers(store.read(INSTANCES))
    inputs = _Inputs(
        parts, scores, identifiers, prepared.mapping, prepared.outcomes, prepared.keyring
    )
    # Both read the parts where they are staged; publishing moves them.
    warnings = input_warnings(prepared, parts, scores)
    codes = unknown_codes(parts, prepared.outcomes)
    digest = linkage_digest(*inputs)
    linkage = _published(prepared, digest)
    is_new = linkage is None
    if linkage is None:
        progress.say(f"linking {scores.num_rows} studies")
        linkage = _link_patients(*inputs, prepared.resources)
        require_matches(*_matching(inputs, linkage), secret_known=store.fingerprint() is not None)
        empty = empty_because(*_matching(inputs, linkage))  # before publishing, like `codes`
        _keep_fingerprint(prepared, linkage)
        _publish(prepared, parts, linkage)
    else:
        progress.say("nothing has changed since the last linkage")
        empty = read_linked(store).empty_because
        _keep_fingerprint(prepared, linkage)
    notes = _Notes(codes, warnings, empty)
    summary = _summary(prepared, stamp, inputs, linkage, notes, is_new=is_new)
    if is_new:
        store.add_run(_run_row(prepared, stamp, inputs, digest, summary), LINKAGES)
    return summary


def _read_extracts(prepared: PreparedLinkage, progress: RunProgress) -> list[Part]:
    """Canonical part of every file; stops where too many rows of a source are unusable."""
    parts = []
    digests = [part_digest(extract, prepared.mapping) for extract in prepared.extracts]
    prepared.parts.discard_staged(digests)
    forgotten = Forgotten.read(prepared.warehouse, prepared.keyring)
    for extract in prepared.extracts:
        part = _make_part.named(extract.source.name)(
            extract, prepared.mapping, prepared.parts, prepared.resources
        )
        part = without_forgotten(part, forgotten)
        parts.append(part)
        known = ", read before" if part.reused else ""
        progress.say(
            f"{extract.label}: {part.n_rows} rows, {part.n_unusable} lines and "
            f"{sum(part.cells.values())} cells in quarantine{known}"
        )
    for source in prepared.mapping.source:
        of_source = [part for part in parts if part.extract.source.name == source.name]
        require_usable(of_source, prepared.mapping.rules.quarantine_limit)
    require_clinical_rows(parts)
    return parts


def _published(prepared: PreparedLinkage, digest: str) -> Linkage | None:
    """The tables of the last linkage; None if one is missing or its inputs were others."""
    store = prepared.warehouse
    tables = (linked_table(tuple(prepared.outcomes.outcome)), EVENTS, FLOW, MATCHES)
    runs = store.read(LINKAGES).sort_by("started_at")
    if not runs.num_rows or not all(map(store.has, tables)):
        return None
    if runs["inputs_digest"][-1].as_py() != digest:
        return None
    linked, events, flow_rows, matches = map(store.read, tables)
    return Linkage(linked, events, flow_rows, matches, QUARANTINE.empty())


def _keep_fingerprint(prepared: PreparedLinkage, linkage: Linkage) -> None:
    """Keep the fingerprint of the secret in a warehouse without one, if it fits a patient."""
    store, keyring = prepared.warehouse, prepared.keyring
    require_same_secret(store, keyring)  # another run may have written it meanwhile
    if store.fingerprint() is not None:
        return
    if not n_matches(linkage):
        raise UsageError(
            f"No patient of the registry has a study in the warehouse {store.url}, whose version "
            "kept no fingerprint of its secret: the secret may be another one. The published "
            "tables are unchanged.",
            "Run `cac index` with the archive of the warehouse once, which checks the secret and "
            "writes the fingerprint; then link again.",
        )
    keep_fingerprint(store, keyring)


def _publish(prepared: PreparedLinkage, parts: Sequence[Part], linkage: Linkage) -> None:
    prepared.warehouse.publish_quarantine(parts)
    prepared.parts.publish(parts)
    for table, rows in (
        (linked_table(tuple(prepared.outcomes.outcome)), linkage.linked),
        (EVENTS, linkage.events),
        (FLOW, linkage.flow),
        (MATCHES, linkage.matches),
        (QUARANTINE, linkage.quarantine),
    ):
        prepared.warehouse.replace(table, rows)


def _summary(
    prepared: PreparedLinkage,
    stamp: RunStamp,
    inputs: _Inputs,
    linkage: Linkage,
    notes: _Notes,
    *,
    is_new: bool,
) -> LinkageSummary:
    shown, aside = prepared.disclosure, prepared.warehouse.read(QUARANTINE)
    lines = in_quarantine(aside)
    return LinkageSummary(
        run_id=stamp.run_id,
        outcome="linked" if is_new else "unchanged",
        warehouse=prepared.warehouse.url,
        model=prepared.model_id,
        site=prepared.mapping.site,
        extracts=[extract_summary(part, aside, lines) for part in inputs.parts],
        patients=linkage.flow.num_rows,
        included=linkage.linked.num_rows,
        flow=flow_counts(linkage.flow, shown),
        outcomes=[
            OutcomeCount(
                name,
                shown.single(pc.sum(linkage.linked[f"{name}_event"]).as_py() or 0),
                shown.single(linkage.linked[f"{name}_event"].null_count),
            )
            for name in prepared.outcomes.outcome
        ],
        unknown_codes=[
            UnknownCodeCount(code.source, code.kind, code.value, shown.single(code.rows))
            for code in notes.codes
        ],
        matches=match_rows(linkage.matches, shown),
        warnings=notes.warnings,
        empty_because=notes.empty_because,
        seconds=round(stamp.seconds, 3),
    )


def _matching(
    inputs: _Inputs, linkage: Linkage
) -> tuple[Sequence[Part], pa.Table, Linkage, Rules, Keyring]:
    """Arguments of the checks of how many rows match."""
    return inputs.parts, inputs.scores, linkage, inputs.mapping.rules, inputs.keyring


def _run_row(
    prepared: PreparedLinkage,
    stamp: RunStamp,
    inputs: _Inputs,
    digest: str,
    summary: LinkageSummary,
) -> dict[str, object]:
    parts = inputs.parts
    # Names of files can hold names of people.
    mapping = prepared.mapping.model_dump(mode="json", exclude={"source": {"__all__": {"files"}}})
    return stamp.columns(_LIBRARIES) | {
        "site": prepared.mapping.site,
        "model_id": prepared.model_id,
        "inputs_digest": digest,
        "extracts": len(parts),
        "extracts_read": sum(not part.reused for part in parts),
        "rows": sum(part.n_rows for part in parts),
        "rows_unusable": sum(part.n_unusable for part in parts),
        "studies": inputs.scores.num_rows,
        "patients": summary.patients,
        "included": summary.included,
        "empty_because": json.dumps(summary.empty_because),
        "outcomes": json.dumps({o.outcome: o.events for o in summary.outcomes}),
        "mapping": json.dumps(mapping),
        "definition": json.dumps(prepared.outcomes.model_dump(mode="json")),
    }
