"""Model scores, scores after review, or both: what an analysis of the cohort is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa

from cac_core.analysis.plan import Plan, ScoreSource, Term
from schemas.codes import CAC_CATEGORIES

#: Scores that an analysis can be asked for.
Scores = Literal["model", "reviewed", "both"]
SCORES: tuple[Scores, ...] = ("model", "reviewed", "both")
_SCORE, _CATEGORY = "reviewed_agatston", "reviewed_cac_category"
_MODEL = "agatston"


def with_reviewed_scores(linked: pa.Table, final: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    """The table `linked` with the score of each patient after review.

    Parameters
    ----------
    linked : the table of that name.
    final : the reading that stands for each study that has one.

    Returns
    -------
    With `reviewed_agatston` and `reviewed_cac_category`: of the reading where there is one, else of
    the model.
    """
    keys = linked["study_key"].to_pylist()
    values: dict[str, list[Any]] = {}
    for name, model, read in (
        (_SCORE, _MODEL, "agatston"),
        (_CATEGORY, "cac_category", "cac_category"),
    ):
        scores = linked[model].to_pylist()
        values[name] = [
            final[key][read] if key in final else score
            for key, score in zip(keys, scores, strict=True)
        ]
    linked = linked.append_column(_SCORE, pa.array(values[_SCORE], pa.float64()))
    return linked.append_column(_CATEGORY, pa.array(values[_CATEGORY], pa.string()))


def plan_for(plan: Plan, scores: Scores) -> Plan:
    """A plan whose scores of the model are those after review, or stand beside them.

    With `reviewed`, the sources of the model have the reviewed scores, under the same names. With
    `both`, each has a second source, `<name>_reviewed`, which is compared with it and with what it
    is compared with.
    """
    mine = [name for name, source in plan.sources.items() if source.score == _MODEL]
    if scores == "model" or not mine:
        return plan
    changed = {name: _reviewed(plan.sources[name], scores) for name in mine}
    described = [_described(term) for term in plan.described if term.source == _MODEL]
    if scores == "reviewed":
        kept = [term for term in plan.described if term.source != _MODEL]
        sources = {name: changed.get(name, source) for name, source in plan.sources.items()}
        changes: dict[str, object] = {"sources": sources, "described": (*described, *kept)}
    else:
        sources = dict(plan.sources) | {f"{name}_reviewed": one for name, one in changed.items()}
        pairs = [_renamed(pair, mine) for pair in plan.compare if set(pair) & set(mine)]
        own = [(f"{name}_reviewed", name) for name in mine]
        changes = {
            "sources": sources,
            "compare": (*plan.compare, *pairs, *own),
            "described": (*plan.described, *described),
        }
    return Plan.model_validate(plan.model_dump() | _dumped(changes))


def _dumped(changes: Mapping[str, object]) -> dict[str, object]:
    """Parts of a plan as plain values, which are validated as a whole."""
    found: dict[str, object] = {}
    for name, value in changes.items():
        if isinstance(value, dict):
            found[name] = {key: one.model_dump() for key, one in value.items()}
        elif name == "described" and isinstance(value, tuple):
            found[name] = [one.model_dump() for one in value]
        else:
            found[name] = value
    return found


def _reviewed(source: ScoreSource, scores: Scores) -> ScoreSource:
    own = {"column": _CATEGORY, "label": f"{source.term.label}, reviewed", "levels": CAC_CATEGORIES}
    if scores == "both":
        own["name"] = _CATEGORY
    return source.model_copy(
        update={
            "score": _SCORE,
            "label": f"{source.label}, reviewed",
            "term": source.term.model_copy(update=own),
        }
    )


def _described(term: Term) -> Term:
    return term.model_copy(
        update={"name": _SCORE, "column": None, "label": f"{term.label}, reviewed"}
    )


def _renamed(pair: tuple[str, str], mine: list[str]) -> tuple[str, str]:
    first, second = (f"{name}_reviewed" if name in mine else name for name in pair)
    return first, second
