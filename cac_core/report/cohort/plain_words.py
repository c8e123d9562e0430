"""Names of columns, readings and outcomes within texts of estimates, as the report shows them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cac_core.analysis.plan import Plan


def shown_names(plan: Plan, outcomes: Mapping[str, str]) -> dict[str, str]:
    """What the report shows in place of each name in a text of an estimate.

    Parameters
    ----------
    outcomes : shown name of each outcome and component.
    """
    names: dict[str, str] = {}
    sources = [source.term for source in plan.sources.values()]
    for term in (*sources, *plan.covariates, *plan.described, *plan.splines):
        for name in (term.name, term.source):
            names.setdefault(name, term.title)
    for source in plan.sources.values():
        if source.score is not None:
            names.setdefault(source.score, f"the score of {source.label}")
    for name, label in outcomes.items():
        names |= {name: label, f"{name}_event": label, f"{name}_days": f"days to {label}"}
    return names


def in_plain_words(text: str, names: Mapping[str, str]) -> str:
    """A text with known names replaced.

    Between backticks every known name is replaced, elsewhere only those that are no English words:
    with an underscore, or in `_ABBREVIATED`.
    """
    text = re.sub(
        r"there is no column `([^`]+)`",
        lambda found: f"{names.get(found.group(1), found.group(1))} is not in the cohort",
        text,
    )
    text = re.sub(
        r"(?:column )?`([^`]+)`",
        lambda found: names.get(found.group(1), found.group()),
        text,
    )
    bare = [name for name in names if "_" in name or name in _ABBREVIATED]
    if not bare:
        return text
    longest_first = "|".join(map(re.escape, sorted(bare, key=len, reverse=True)))
    return re.sub(rf"(?<![\w`])(?:{longest_first})(?![\w`])", lambda one: names[one.group()], text)


def squared(text: str) -> str:
    """A text with the squares of its units as such: kg/m2 is kg/m²."""
    return _SQUARE.sub("\\1\N{SUPERSCRIPT TWO}", text)


#: A squared metre or part of it.
_SQUARE = re.compile(r"\b([cm]?m)2\b")
#: Components and covariates whose names are not plain words.
_WORDS = {"mi": "myocardial infarction", "age_years": "age"}


def word(name: str) -> str:
    """A component or a covariate in a sentence."""
    return _WORDS.get(name) or name.replace("_", " ")


def listed(parts: Iterable[str], last: str = "and") -> str:
    """Parts with commas, and a word before the last."""
    known = list(parts)
    return f" {last} ".join([", ".join(known[:-1]), known[-1]] if len(known) > 1 else known)


#: Names of outcomes that are abbreviations.
_ABBREVIATED = ("mace", "mi")
