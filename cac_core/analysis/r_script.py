"""An R script that repeats the Cox models of a plan from the exported table `linked`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files

from cac_core.analysis.plan import Plan, Term


def r_script(plan: Plan) -> str:
    """The text of `analysis.R` for a plan: hazard ratios of all its populations and outcomes."""
    sources = {name: _term(source.term) for name, source in plan.sources.items()}
    populations = {
        name: [_given(one.model_dump(mode="json")) for one in population.where]
        for name, population in plan.populations.items()
    }
    lines = [
        f"outcomes <- {_literal(list(plan.outcomes))}",
        f"confidence <- {_literal(plan.confidence)}",
        f"populations <- {_literal(populations)}",
        "sources <- " + _listed({name: _literal(term) for name, term in sources.items()}),
        "covariates <- " + _listed([_literal(_term(term)) for term in plan.covariates]),
    ]
    if plan.missing != "complete_case":
        lines.insert(0, "# The plan imputes missing values; the multivariable models here do not.")
    template = files("cac_core.analysis").joinpath("templates", "analysis.R")
    return template.read_text(encoding="utf-8").replace("{plan}", "\n".join(lines), 1)


def _term(term: Term) -> dict[str, object]:
    """What the script needs of a term; settings that are not given are left out."""
    named = {
        "name": term.name,
        "column": term.source,
        "kind": term.kind,
        "per": term.per,
        "levels": list(term.levels),
        "reference": term.reference_level or None,
        "positive": term.positive,
        "negative": term.negative,
        "cuts": list(term.cuts),
        "merge": dict(term.merge),
        "knots": term.knots,
    }
    return _given(named)


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value not in (None, [], {}, ())}


def _listed(items: Mapping[str, str] | Sequence[str]) -> str:
    """A list of R with one item per line."""
    if isinstance(items, Mapping):
        items = [f"{json.dumps(name)} = {text}" for name, text in items.items()]
    return "list(\n  " + ",\n  ".join(items) + "\n)"


def _literal(value: object) -> str:
    """A value as R code; JSON and R write texts in the same way."""
    if isinstance(value, Mapping):
        pairs = (f"{json.dumps(name)} = {_literal(item)}" for name, item in value.items())
        return f"list({', '.join(pairs)})"
    if isinstance(value, list | tuple):
        whole = all(isinstance(item, str | int | float) for item in value) and len(value) > 0
        return f"{'c' if whole else 'list'}({', '.join(map(_literal, value))})"
    return json.dumps(value)
