"""Names of columns within the limits of other programs: 32 characters in Stata, 8 in old SAS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

#: Common words of long names.
_WORDS: Mapping[str, str] = {
    "revascularisation": "revasc",
    "category": "cat",
    "expert": "exp",
    "agatston": "agat",
    "procedure": "proc",
    "occurrence": "occ",
    "observation": "obs",
    "measurement": "meas",
    "condition": "cond",
    "component": "comp",
    "concept": "cpt",
    "patient": "pat",
    "person": "pers",
    "source": "src",
    "period": "per",
    "number": "num",
    "value": "val",
    "start": "beg",
}
#: Names of 8 characters for the columns of `linked` and `events`.
_EIGHT: Mapping[str, str] = {
    "patient_key": "patkey",
    "study_key": "studykey",
    "study_date": "scandt",
    "event_date": "eventdt",
    "age_years": "age",
    "bmi_kg_m2": "bmi",
    "hypertension": "htn",
    "dyslipidemia": "lipid",
    "family_history": "famhx",
    "prior_cabg": "prcabg",
    "prior_pci": "prpci",
    "prior_mi": "prmi",
    "stress_tpd_pct": "tpdstr",
    "rest_tpd_pct": "tpdrest",
    "stress_lvef_pct": "lvefstr",
    "cac_category": "caccat",
    "expert_agatston": "expagat",
    "expert_cac_category": "expcat",
    "visual_grade": "visgrade",
    "p_category_0": "pcac0",
    "p_category_1_100": "pcac1",
    "p_category_101_400": "pcac101",
    "p_category_over_400": "pcac401",
    "agatston_low": "agatlow",
    "agatston_high": "agathigh",
    "needs_review": "review",
    "review_reasons": "revwhy",
    "follow_up_days": "fudays",
    "mace_event": "maceev",
    "mace_days": "macedy",
    "death_event": "deathev",
    "death_days": "deathdy",
    "death_mi_event": "dthmiev",
    "death_mi_days": "dthmidy",
    "mace_no_early_revascularisation_event": "macenrev",
    "mace_no_early_revascularisation_days": "macenrdy",
    "cac_category_n": "caccatn",
    "expert_cac_category_n": "expcatn",
    "visual_grade_n": "visgradn",
}
_VOWELS = frozenset("aeiou")


def short_names(names: Sequence[str], length: int) -> list[str]:
    """Distinct, readable names of at most `length` characters; names that fit stay.

    Long names lose syllables of known words, then vowels, then the ends of their longest words.
    """
    return _distinct(names, length, lambda name: _shortened(name, length))


def cut_names(names: Sequence[str], length: int) -> list[str]:
    """Distinct names of at most `length` characters: their beginnings."""
    return _distinct(names, length, lambda name: name[:length])


def _distinct(names: Sequence[str], length: int, shorten: Callable[[str], str]) -> list[str]:
    short: list[str] = []
    taken: set[str] = set()
    for name in names:
        first, number = shorten(name), 1
        cut = first
        while cut.lower() in taken:
            number += 1
            cut = f"{first[: length - len(str(number))]}{number}"
        taken.add(cut.lower())
        short.append(cut)
    return short


def _shortened(name: str, length: int) -> str:
    if len(name) <= length:
        return name
    if length <= 8 and name in _EIGHT:
        return _EIGHT[name]
    between = "_" if length > 8 else ""
    words = [_WORDS.get(word, word) for word in name.split("_")]
    for at in sorted(range(len(words)), key=lambda index: -len(words[index])):
        if len(between.join(words)) > length:
            words[at] = words[at][:1] + "".join(c for c in words[at][1:] if c not in _VOWELS)
    while len(between.join(words)) > length and max(map(len, words)) > 1:
        at = max(range(len(words)), key=lambda index: len(words[index]))
        words[at] = words[at][:-1]
    return between.join(words)[:length]
