"""The registry linkage: extracts to canonical tables, joined with the scores, outcomes and flow."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from cac_core.cohort.canonical import Part, PartStore, Resources
from cac_core.cohort.disclosure import suppress_small
from cac_core.cohort.extracts import Extract, check_header, find_extracts
from cac_core.cohort.link import Linkage, check_rules, linkage_digest
from cac_core.cohort.mapping import SiteMapping, load_mapping
from cac_core.cohort.outcomes import OutcomeDefinition, load_outcomes
from cac_core.cohort.overlap import misspelt, overlap
from cac_core.cohort.scores import chosen_model, scores_of
from cac_core.cohort.store import Warehouse
from cac_core.cohort.unknown_codes import unknown_codes
from cac_core.errors import CacError, UsageError
from cac_core.keys import Keyring, load_keyring
from cac_core.settings import Settings, load_settings
from cac_core.version import __version__
from flows.request import open_warehouse
from flows.runtime.progress import RunProgress, current_progress
from schemas.codes import FlowStep
from schemas.instance import INSTANCES
from schemas.linkage import EVENTS, FLOW, LINKAGES, MATCHES, QUARANTINE
from schemas.linked import linked_table
from schemas.table import TableSpec
from tasks.linkage import canonical_part, link_patients

_LIBRARIES = ("prefect", "duckdb", "pyarrow", "pandera")
#: A registry whose newest record is this much older than its stated end was extracted early.
_SILENT_DAYS = 180
_SHOWN_FAULTS = 5


@dataclass(frozen=True)
class LinkageRequest:
    """Arguments of one linkage; what is None comes from the settings file."""

    warehouse: str | None = None
    config: str | None = None
    mapping: str | None = None
    outcomes: str | None = None
    model: str | None = None
    suppress: bool | None = None


@dataclass(frozen=True)
class PreparedLinkage:
    """A checked request: mapping, extracts and scores are there and fit each other."""

    warehouse: Warehouse
    store: PartStore
    settings: Settings
    keyring: Keyring
    mapping: SiteMapping
    outcomes: OutcomeDefinition
    extracts: tuple[Extract, ...]
    model_id: str
    suppress: bool

    @property
    def resources(self) -> Resources:
        """What DuckDB may use."""
        wanted = self.settings.linkage
        threads = wanted.threads or len(os.sched_getaffinity(0))
        return Resources(wanted.memory_limit, threads, wanted.scratch)


def prepare_linkage(request: LinkageRequest) -> PreparedLinkage:
    """Check a request and open what it names; writes nothing.

    Raises
    ------
    CacError
        For the first thing that is wrong: settings, secret, mapping, outcome definition, scores,
        an extract that is not there or lacks a column.
    """
    settings = load_settings(None if request.config is None else Path(request.config))
    wanted = settings.linkage
    path = Path(request.mapping) if request.mapping else wanted.mapping
    if path is None:
        raise UsageError(
            "No mapping is named.",
            "Give --mapping FILE, or set `linkage.mapping` in cac.toml; `cac link --propose "
            "EXTRACT` drafts one.",
        )
    mapping = load_mapping(path)
    check_rules(mapping.rules)
    outcomes = load_outcomes(Path(request.outcomes) if request.outcomes else wanted.outcomes)
    keyring = load_keyring(settings.key_file)
    warehouse = open_warehouse(request.warehouse, settings)
    store = warehouse.parts()
    model_id = chosen_model(warehouse, request.model or wanted.model)
    warehouse.check_writable()
    found = [one for source in mapping.source for one in find_extracts(source, path.parent)]
    for extract in found:
        check_header(extract)
    suppress = wanted.suppress_small_cells if request.suppress is None else request.suppress
    return PreparedLinkage(
        warehouse, store, settings, keyring, mapping, outcomes, tuple(found), model_id, suppress
    )


def preview_linkage(request: LinkageRequest) -> dict[str, Any]:
    """What a linkage would read; writes nothing."""
    prepared = prepare_linkage(request)
    return {
        "dry_run": True,
        "warehouse": prepared.warehouse.url,
        "model": prepared.model_id,
        "site": prepared.mapping.site,
        "outcomes": list(prepared.outcomes.outcome),
        "extracts": [
            {"source": e.source.name, "file": e.path.name, "table": e.source.table}
            for e in prepared.extracts
        ],
    }


def link_cohort(request: LinkageRequest) -> dict[str, Any]:
    """Link as the request says; the flow below without what it tells Prefect."""
    prepared = prepare_linkage(request)
    with prepared.warehouse.lock():
        return _Linking(prepared, current_progress()).run()


@flow(name="registry-linkage", persist_result=False, validate_parameters=False)
def registry_linkage(
    warehouse: str | None = None,
    config: str | None = None,
    mapping: str | None = None,
    outcomes: str | None = None,
    model: str | None = None,
    suppress: bool | None = None,
) -> dict[str, Any]:
    """Link the scores of a warehouse with the extracts that a mapping names.

    Parameters
    ----------
    warehouse, config, mapping, outcomes, model : as the options of `cac link`.
    suppress : hide small counts in what is printed and shown; the tables keep them.

    Returns
    -------
    The summary that `cac link --json` prints.
    """
    summary = link_cohort(LinkageRequest(warehouse, config, mapping, outcomes, model, suppress))
    create_markdown_artifact(key="registry-linkage", markdown=_markdown(summary))
    return summary


class _Linking:
    """One run, step by step."""

    def __init__(self, prepared: PreparedLinkage, progress: RunProgress) -> None:
        self.prepared = prepared
        self.progress = progress
        self.started_at = dt.datetime.now(dt.UTC)
        self.clock = monotonic()
        self.run_id = f"{self.started_at:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"

    def run(self) -> dict[str, Any]:
        prepared = self.prepared
        store = prepared.warehouse
        parts = self._parts()
        scores = scores_of(store, prepared.model_id, prepared.settings.protocol.digest)
        accessions = _accessions(store.read(INSTANCES))
        inputs = (parts, scores, accessions, prepared.mapping, prepared.outcomes, prepared.keyring)
        digest = linkage_digest(*inputs)
        warnings = _warnings(prepared, parts, scores)
        warnings += misspelt(parts, scores, prepared.keyring).told()
        codes = _told_codes(parts, prepared)  # before the parts move to where they are published
        spec = linked_table(tuple(prepared.outcomes.outcome))
        if self._last_digest(spec) == digest:
            self.progress.say("nothing has changed since the last linkage")
            outcome = "unchanged"
            linked, events, flow_rows, matches = map(store.read, (spec, EVENTS, FLOW, MATCHES))
            done = Linkage(linked, events, flow_rows, matches, QUARANTINE.empty())
        else:
            self.progress.say(f"linking {scores.num_rows} studies")
            outcome = "linked"
            done = link_patients(*inputs, prepared.resources)
            _require_matches(prepared, parts, scores, done)
            prepared.store.publish(parts)
            for table, rows in (
                (spec, done.linked),
                (EVENTS, done.events),
                (FLOW, done.flow),
                (MATCHES, done.matches),
                (QUARANTINE, done.quarantine),
            ):
                store.replace(table, rows)
        summary = self._summary(parts, done, outcome, warnings, codes)
        if outcome == "linked":
            store.add_run(self._run_row(summary, parts, scores, digest), LINKAGES)
        for warning in warnings:
            self.progress.say(f"warning: {warning}")
        return summary

    def _parts(self) -> list[Part]:
        """A part per file; stops where too many rows of a source are unusable."""
        prepared = self.prepared
        parts = []
        for extract in prepared.extracts:
            part = canonical_part.named(extract.source.name)(
                extract, prepared.mapping, prepared.store, prepared.resources
            )
            parts.append(part)
            known = ", read before" if part.reused else ""
            self.progress.say(
                f"{extract.label}: {part.n_rows} rows, {part.n_unusable} lines and "
                f"{sum(part.cells.values())} cells in quarantine{known}"
            )
        for source in prepared.mapping.source:
            _require_usable(
                [part for part in parts if part.extract.source.name == source.name],
                prepared.mapping.rules.quarantine_limit,
            )
        return parts

    def _last_digest(self, linked: TableSpec) -> str | None:
        """Digest of what the published tables were made from; None where they are not whole."""
        store = self.prepared.warehouse
        rows = store.read(LINKAGES).sort_by("started_at")
        if not rows.num_rows or not all(map(store.has, (linked, EVENTS, FLOW, MATCHES))):
            return None
        last: str = rows["inputs_digest"][-1].as_py()
        return last

    def _summary(
        self,
        parts: Sequence[Part],
        done: Linkage,
        outcome: str,
        warnings: list[str],
        codes: list[dict[str, Any]],
    ) -> dict[str, Any]:
        prepared = self.prepared
        told = _counted if not prepared.suppress else suppress_small
        steps = Counter(done.flow["step"].to_pylist())
        flow_counts = told([steps[step.value] for step in FlowStep])
        names = list(prepared.outcomes.outcome)
        events = [pc.sum(done.linked[f"{name}_event"]).as_py() or 0 for name in names]
        excluded = [done.linked[f"{name}_event"].null_count for name in names]
        return {
            "run_id": self.run_id,
            "outcome": outcome,
            "warehouse": prepared.warehouse.url,
            "model": prepared.model_id,
            "site": prepared.mapping.site,
            "extracts": [_told_part(part) for part in parts],
            "patients": done.flow.num_rows,
            "included": done.linked.num_rows,
            "flow": [
                {"step": step.value, "description": step.description, "patients": count}
                for step, count in zip(FlowStep, flow_counts, strict=True)
            ],
            "outcomes": [
                {"outcome": name, "events": n, "patients_left_out": out}
                for name, n, out in zip(
                    names, map(_alone(told), events), map(_alone(told), excluded), strict=True
                )
            ],
            "unknown_codes": codes,
            "matches": _told_matches(done.matches, suppress=prepared.suppress),
            "warnings": warnings,
            "seconds": round(monotonic() - self.clock, 3),
        }

    def _run_row(
        self, summary: dict[str, Any], parts: Sequence[Part], scores: pa.Table, digest: str
    ) -> dict[str, object]:
        prepared = self.prepared
        libraries = {name: version(name) for name in _LIBRARIES}
        return {
            "run_id": self.run_id,
            "started_at": self.started_at,
            "finished_at": dt.datetime.now(dt.UTC),
            "site": prepared.mapping.site,
            "model_id": prepared.model_id,
            "inputs_digest": digest,
            "extracts": len(parts),
            "extracts_read": sum(not part.reused for part in parts),
            "rows": sum(part.n_rows for part in parts),
            "rows_unusable": sum(part.n_unusable for part in parts),
            "studies": scores.num_rows,
            "patients": summary["patients"],
            "included": summary["included"],
            "outcomes": json.dumps({o["outcome"]: o["events"] for o in summary["outcomes"]}),
            "seconds": monotonic() - self.clock,
            "core_version": __version__,
            "mapping": json.dumps(_told_mapping(prepared.mapping)),
            "definition": json.dumps(prepared.outcomes.model_dump(mode="json")),
            "versions": json.dumps({"python": platform.python_version(), **libraries}),
        }


def _told_mapping(mapping: SiteMapping) -> dict[str, Any]:
    """The mapping without names of files, which may hold names of people."""
    return mapping.model_dump(mode="json", exclude={"source": {"__all__": {"files"}}})


def _accessions(instances: pa.Table) -> pa.Table:
    """What the headers of each study say that tells whose it is."""
    told = instances.select(["study_key", "accession_key", "PatientSex", "patient_birth_year"])
    return told.filter(pc.is_valid(told["study_key"])).group_by(told.column_names).aggregate([])


def _require_usable(parts: Sequence[Part], limit: float) -> None:
    """Stop where the share of unusable lines is above the limit, or half of a column is unusable.

    Blank lines lose nothing and do not count.
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
        f"{limit:.0%}: {listed}. The tables stay as they were.",
        f"File, line and reason of each are in {parts[0].quarantine.parent}; correct the mapping "
        f"of `{source.name}`, or raise `rules.quarantine_limit`.",
    )


def _require_matches(
    prepared: PreparedLinkage, parts: Sequence[Part], scores: pa.Table, done: Linkage
) -> None:
    """Stop before a table is replaced where registry and archive have next to nothing in common."""
    rules = prepared.mapping.rules
    found = overlap(parts, scores, done.matches, rules.window_days)
    if found.rate >= rules.min_match_rate:
        return
    rows = sum(part.n_rows for part in parts if part.extract.source.table == "clinical")
    if not rows:
        why = ["the clinical table has no row that can be used"]
    elif not found.possible:
        why = ["no clinical row is of the time of the archive"]
    else:
        aside = _set_aside(done.quarantine)
        why = misspelt(parts, scores, prepared.keyring).told()
        if not why and 2 * aside.total() < rows:
            why = [
                "the secret may be another than the one that the archive was scored under, or the "
                "extract another site's"
            ]
        why += [f"{n} rows are set aside as {reason}" for reason, n in aside.most_common()]
    raise CacError(
        f"{found.matched} of {rows} clinical rows match a study ({scores.num_rows} in the "
        f"archive), less than the limit of {rules.min_match_rate:.0%}: {'; '.join(why)}. The "
        "tables stay as they were.",
        "Correct the secret, the mapping or the extract (docs/linkage.md explains the reasons); "
        "if so few do belong together, lower `rules.min_match_rate`.",
    )


def _set_aside(quarantine: pa.Table) -> Counter[str]:
    """Clinical rows that are in doubt, by reason: not believed to be about the study they name."""
    return Counter(
        quarantine.filter(pc.equal(quarantine["table"], "clinical"))["reason"].to_pylist()
    )


def _require_columns(parts: Sequence[Part], total: int) -> None:
    """Stop where most cells of a column are set aside: not the data are wrong, but the mapping."""
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
                f"({reasons[column]}). The tables stay as they were.",
                f"Line and shape of each are in {parts[0].quarantine.parent}; correct the mapping "
                f"of `{source.name}`.",
            )


def _warnings(prepared: PreparedLinkage, parts: Sequence[Part], scores: pa.Table) -> list[str]:
    """What is no fault of a row, and yet makes the table say less than it seems to."""
    end = prepared.mapping.coverage.end
    told = []
    late = pc.sum(pc.greater(scores["study_date"], pa.scalar(end))).as_py() or 0
    if late:
        told.append(
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
        told.append(
            f"{unread} cells of prior_mi, prior_pci or prior_cabg could not be read; these "
            "patients count as without that disease unless a record tells of it"
        )
    for source in prepared.mapping.source:
        dates = [
            part.newest
            for part in parts
            if part.extract.source.name == source.name and part.newest is not None
        ]
        if dates and (end - max(dates)).days > _SILENT_DAYS:
            told.append(
                f"the newest record of source {source.name} is of {max(dates):%Y-%m}, but coverage "
                f"ends on {end}; if the extract is older, move `coverage.end` back, else events "
                "that it lacks count as none"
            )
    return told


def _told_part(part: Part) -> dict[str, Any]:
    return {
        "source": part.extract.source.name,
        "table": part.extract.source.table,
        "label": part.extract.label,
        "file": part.extract.path.name,
        "lines": part.n_lines,
        "rows": part.n_rows,
        "unusable": part.n_unusable,
        "blank": part.n_blank,
        "faults": [
            {"column": column, "reason": reason, "rows": n}
            for (column, reason), n in sorted(part.faults.items(), key=str)
        ],
        "cells": [
            {"column": column, "reason": reason, "cells": n}
            for (column, reason), n in sorted(part.cells.items(), key=str)
        ],
        "read_before": part.reused,
    }


def _told_codes(parts: Sequence[Part], prepared: PreparedLinkage) -> list[dict[str, Any]]:
    """Codes that no rule knows; small counts are hidden where the others are."""
    told = _alone(suppress_small if prepared.suppress else _counted)
    return [
        {"source": u.source, "kind": u.kind, "value": u.value, "rows": told(u.rows)}
        for u in unknown_codes(parts, prepared.outcomes)
    ]


def _told_matches(matches: pa.Table, *, suppress: bool) -> list[dict[str, Any]]:
    ways = ("n_by_key_and_date", "n_by_accession", "n_unmatched")
    rows = []
    for row in matches.to_pylist():
        if suppress:
            hidden = suppress_small([row[way] for way in ways])
            if hidden != [row[way] for way in ways]:
                row["match_rate"] = None
            row |= dict(zip(ways, hidden, strict=True))
        rows.append(row)
    return rows


def _counted(counts: Sequence[int]) -> list[int | str]:
    return list(counts)


def _alone(told: Any) -> Any:
    """Tell a count that is part of no table."""
    return lambda count: told([count])[0]


def _markdown(summary: dict[str, Any]) -> str:
    lines = [f"# Registry linkage {summary['run_id']}", "", f"Outcome: {summary['outcome']}.", ""]
    lines += ["| step | patients |", "|---|---|"]
    lines += [f"| {row['description']} | {row['patients']} |" for row in summary["flow"]]
    lines += ["", "| outcome | events | left out |", "|---|---|---|"]
    lines += [
        f"| `{row['outcome']}` | {row['events']} | {row['patients_left_out']} |"
        for row in summary["outcomes"]
    ]
    lines += ["", "| extract | rows | lines in quarantine | cells in quarantine |"]
    lines += ["|---|---|---|---|"]
    lines += [
        f"| {e['label']} | {e['rows']} | {e['unusable']} | {sum(c['cells'] for c in e['cells'])} |"
        for e in summary["extracts"]
    ]
    if summary["unknown_codes"]:
        lines += ["", "Codes and types that no rule knows:", ""]
        lines += ["| source | kind | value | rows |", "|---|---|---|---|"]
        lines += [
            f"| {u['source']} | {u['kind']} | {u['value']} | {u['rows']} |"
            for u in summary["unknown_codes"]
        ]
    lines += ["", *(f"Warning: {text}." for text in summary["warnings"])]
    return "\n".join(lines)
