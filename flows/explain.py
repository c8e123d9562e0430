"""`cac status --explain`: why a study has a score or none, and what to do."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from cac_core.advice import advice
from cac_core.cohort.forgotten import Forgotten
from cac_core.cohort.warehouse import Warehouse
from cac_core.cohort.worklist import Identity, wanted_studies
from cac_core.dicom.selection_rules import load_rules
from cac_core.errors import CacError, UsageError
from cac_core.keys import load_keyring
from cac_core.model.weights import WeightsManifest, verify_weights
from cac_core.settings import Settings
from flows.request import open_warehouse, read_settings
from flows.summaries import Rows, StudyExplanation
from schemas.codes import FileReason, SeriesReason, Status, StudyReason
from schemas.instance import INSTANCES
from schemas.score import SCORES
from schemas.series import SERIES

_KEY = r"[0-9a-f]{4,32}"
#: Parts of the identity of a score, and what it means if one differs now.
_CHANGES = {
    "instances_digest": "files of the study, or the rules that choose the series, have changed",
    "model_digest": "the weights have changed",
    "protocol_digest": "the scoring protocol has changed",
    "core_version": "the version of the program has changed",
}
_Row = dict[str, Any]


def explain_study(
    study: str, warehouse: str | None, config: str | None, model: str | None = None
) -> StudyExplanation:
    """Say why a study is done, wanted, failed, rejected or skipped, from the warehouse alone.

    Parameters
    ----------
    study : study key, or its first digits (at least four) if no other study begins with them.
    model : model that a run would use; default: that of the settings.

    Raises
    ------
    UsageError
        If the key is malformed, or several studies begin with its digits.
    CacError
        If the warehouse knows no such study.
    """
    if not re.fullmatch(_KEY, study):
        raise UsageError(
            "That is not a study key.",
            "A key has 32 lower-case hexadecimal digits, as in `scores`; give the first four or "
            "more.",
        )
    settings = read_settings(config)
    store = open_warehouse(warehouse, settings)
    weights = verify_weights(Path(model) if model else settings.model)
    key = _whole_key(store, study)
    if key is None:
        return _unknown(store, settings, study, weights.model_id)
    return _explained(store, settings, weights, key)


def _whole_key(store: Warehouse, digits: str) -> str | None:
    """The one study key that begins with these digits; None if there is none."""
    names = ["study_key"]
    tables = [store.columns(INSTANCES, names)]
    tables += [store.columns(SCORES, names, model) for model in store.models()]
    known = {key for table in tables for key in table["study_key"].unique().to_pylist() if key}
    found = [key for key in known if key.startswith(digits)]
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} studies begin with these {len(digits)} digits.", "Give more digits."
        )
    return str(found[0]) if found else None


def _unknown(store: Warehouse, settings: Settings, study: str, model: str) -> StudyExplanation:
    """A study of a forgotten patient, which only its whole key and the secret can show."""
    if store.exists() and Forgotten.read(store, _keyring(settings)).holds(study):
        reason = FileReason.FORGOTTEN
        return StudyExplanation(
            study_key=study,
            state="skipped",
            reason=reason.value,
            because=[reason.description],
            what_to_do=advice(reason),
            model=model,
        )
    raise CacError(
        f"No study in {store.url} has that key.",
        "Take a study key from the table `scores` or `series`; `cac index` reads new files.",
    )


def _keyring(settings: Settings) -> Any:
    try:
        return load_keyring(settings.key_file)
    except CacError:
        return None


def _explained(
    store: Warehouse, settings: Settings, weights: WeightsManifest, key: str
) -> StudyExplanation:
    protocol, rules = settings.protocol, load_rules(settings.rules)
    identity = Identity(weights.digest, protocol.digest, rules.digest)
    instances = store.read(INSTANCES, studies=[key])
    series = store.read(SERIES, studies=[key])
    wanted = wanted_studies(instances, series, identity).to_pylist()
    scores = _scores(store, key)
    facts: _Row = {
        "study_key": key,
        "model": weights.model_id,
        "files": dict(Counter(instances["reason"].drop_null().to_pylist())),
        "series": _series_rows(series),
        "scores": scores,
    }
    if not wanted:
        text = "the last index of the archive holds no usable file of this study"
        todo = "Nothing, if its files were removed; else check the archive and run `cac index`."
        return StudyExplanation(state="skipped", because=[text], what_to_do=todo, **facts)
    return _compared(wanted[0], [row for row in scores if row["model"] == weights.model_id], facts)


def _compared(wanted: _Row, scores: Rows, facts: _Row) -> StudyExplanation:
    """Compare what a run would score with the newest score of its model."""
    same = [row for row in scores if all(row[name] == wanted[name] for name in _CHANGES)]
    if same:
        return _scored_before(same[-1], facts)
    because = _changes(wanted, scores, facts)
    reason = None if wanted["reason"] is None else StudyReason(wanted["reason"])
    if reason is not None:
        because.append(f"the next run will reject it: {reason.description}")
    return StudyExplanation(
        state="wanted",
        reason=None if reason is None else reason.value,
        detail=wanted["detail"],
        because=because,
        what_to_do="Run `cac score`." if reason is None else advice(reason),
        **facts,
    )


def _changes(wanted: _Row, scores: Rows, facts: _Row) -> list[str]:
    if not scores:
        others = sorted({row["model"] for row in facts["scores"]})
        if not others:
            return ["it is in the index of the archive and was not scored yet"]
        return [f"this model has not scored it yet; {', '.join(others)} did"]
    newest = scores[-1]
    return [text for name, text in _CHANGES.items() if newest[name] != wanted[name]]


def _scored_before(score: _Row, facts: _Row) -> StudyExplanation:
    """A study whose row in the ledger is current."""
    status = Status(score["status"])
    reason = None if score["reason"] is None else StudyReason(score["reason"])
    because = [status.description if reason is None else reason.description]
    if score["core_version"] and status is Status.SCORED:
        because.append("files, model, protocol and version are those of its score")
    todo = advice(status) if reason is None else advice(reason)
    if status is Status.FAILED and "cac retry" not in todo:
        todo = f"{todo} Then run `cac retry`."
    return StudyExplanation(
        state="done" if status is Status.SCORED else status.value,
        reason=None if reason is None else reason.value,
        detail=score["detail"],
        because=because,
        what_to_do=todo,
        **facts,
    )


_SCORE_COLUMNS = (
    *("study_key", "status", "reason", "detail", "agatston", "scored_at", "run_id"),
    *("protocol_digest", "model_digest", "core_version", "instances_digest"),
)


def _scores(store: Warehouse, key: str) -> Rows:
    """Score rows of a study by all models, oldest first."""
    rows: Rows = []
    for model in store.models():
        found = store.read(SCORES, model, studies=[key]).select(list(_SCORE_COLUMNS))
        rows += [{"model": model} | row for row in found.to_pylist()]
    return sorted(rows, key=lambda row: row["scored_at"])


def _series_rows(series: pa.Table) -> Rows:
    """Series of the study, the selected one first, with the reason why each was not chosen."""
    columns = ["SeriesNumber", "SeriesDescription", "Modality", "n_slices", "selected", "reason"]
    rows: Rows = series.select(columns).to_pylist()
    for row in rows:
        row["meaning"] = None if row["reason"] is None else SeriesReason(row["reason"]).description
    return sorted(rows, key=lambda row: (not row["selected"], row["SeriesNumber"] or 0))
