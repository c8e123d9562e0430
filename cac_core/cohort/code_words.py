"""Words that registries of several languages write for a code, and what they mean.

A closed list: none of these words can identify a person, so messages may show them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Pairs of yes and no, in lower case.
YES_NO = (
    *(("1", "0"), ("y", "n"), ("yes", "no"), ("t", "f"), ("true", "false"), ("ja", "nein")),
    *(("j", "n"), ("wahr", "falsch"), ("oui", "non"), ("o", "n"), ("vrai", "faux"), ("sí", "no")),
    *(("si", "no"), ("s", "n"), ("ja", "nee"), ("waar", "onwaar"), ("ja", "nej"), ("ja", "nei")),
    *(("positiv", "negativ"), ("positive", "negative"), ("pos", "neg"), ("+", "-")),
)
#: Words for "not known", in lower case.
UNKNOWN = frozenset(
    (
        *("unknown", "unk", "other", "none", "missing", "nan", "x", "?", "unbekannt", "k.a.", "ka"),
        *("fehlend", "divers", "d", "inconnu", "nr", "desconocido", "onbekend", "ukendt", "ukjent"),
        *("okänd", "okänt"),
    )
)
#: Roles of a diagnosis in the letters of the Discharge Abstract Database: M main (most responsible)
#: diagnosis of the stay, 1 another diagnosis of it.
TYPE_MEANINGS: Mapping[str, str] = {
    **dict.fromkeys(("hd", "hauptdiagnose", "haupt", "hdia", "huvuddiagnos", "h"), "M"),
    **dict.fromkeys(("nd", "nebendiagnose", "neben", "bdia", "bidiagnos", "n"), "1"),
    **dict.fromkeys(("primary", "principal", "main", "pdx", "p"), "M"),
    **dict.fromkeys(("secondary", "sdx", "s", "other"), "1"),
    **dict.fromkeys(("dp", "hoofddiagnose", "hoofd", "aktionsdiagnose", "hovedtilstand", "a"), "M"),
    **dict.fromkeys(("das", "dad", "nevendiagnose", "neven", "bidiagnose", "bitilstand", "b"), "1"),
}
_SEX = {
    **dict.fromkeys(("m", "male", "man", "männlich", "maennlich", "mann", "mand"), "M"),
    **dict.fromkeys(("homme", "masculin", "hombre", "masculino", "varón", "h"), "M"),
    **dict.fromkeys(("f", "female", "w", "weiblich", "frau", "femme", "féminin", "woman"), "F"),
    **dict.fromkeys(("mujer", "femenino", "vrouw", "v", "kvinde", "kvinne", "kvinna", "k"), "F"),
}
_RECORDS = {
    **dict.fromkeys(("d", "ip", "i", "inpatient", "stationär", "vollstationär"), "inpatient"),
    **dict.fromkeys(("stationaer", "vollstationaer", "hospitalisation", "mco"), "inpatient"),
    **dict.fromkeys(("hospitalización", "hospitalizacion", "klinisch", "opname"), "inpatient"),
    **dict.fromkeys(("indlagt", "innlagt", "inlagd", "slutenvård", "døgn"), "inpatient"),
    **dict.fromkeys(("e", "ed", "er", "emergency", "notfall", "notaufnahme"), "emergency"),
    **dict.fromkeys(("urgence", "urgences", "urgencias", "seh", "spoed"), "emergency"),
    **dict.fromkeys(("akut", "akutt", "skadestue", "akutmottagning"), "emergency"),
    **dict.fromkeys(("a", "op", "o", "ambulatory", "outpatient", "ambulant"), "ambulatory"),
    **dict.fromkeys(("ambulanz", "ambulatoire", "externe", "consultation"), "ambulatory"),
    **dict.fromkeys(("ambulatorio", "poliklinisch", "poliklinisk", "öppenvård"), "ambulatory"),
}
_GRADES = {
    **dict.fromkeys(("kein", "keine", "keiner", "kein kalk", "aucun", "ninguno"), "absent"),
    **dict.fromkeys(("fraglich", "douteux", "dudoso", "twijfelachtig", "usikker"), "equivocal"),
    **dict.fromkeys(("vorhanden", "présent", "presente", "aanwezig", "tilstede"), "present"),
    **dict.fromkeys(("ausgedehnt", "ausgeprägt", "étendu", "extenso", "uitgebreid"), "extensive"),
}
_METHODS = {
    **dict.fromkeys(("experte", "expertin", "quantitativ", "expertus"), "expert"),
    **dict.fromkeys(("visuell", "visuel", "visueel", "qualitativ"), "visual"),
}
_SYSTEMS = {
    **dict.fromkeys(("10", "icd10", "icd-10", "icd-10-cm", "icd-10-gm", "icd-10-ca"), "ICD-10"),
    **dict.fromkeys(("9", "icd9", "icd-9", "icd-9-cm"), "ICD-9-CM"),
}
#: Canonical codes by column and by word in lower case.
MEANINGS: Mapping[str, Mapping[str, str]] = {
    "sex": _SEX,
    "record_type": _RECORDS,
    "visual_grade": _GRADES,
    "method": _METHODS,
    "diagnosis_type": TYPE_MEANINGS,
    "diagnosis_system": _SYSTEMS,
}
#: Every word of these lists, in lower case.
CODE_WORDS = (
    frozenset(word for pair in YES_NO for word in pair)
    | frozenset(word for known in MEANINGS.values() for word in known)
    | UNKNOWN
)


def is_known_coding(value: str) -> bool:
    """Whether a value is a common code, and so cannot identify a person."""
    return value.lower() in CODE_WORDS or re.fullmatch(r"[0-9A-Za-z?+-]{1,2}", value) is not None


def yes_no_codes(values: list[str]) -> dict[str, str]:
    """Codes of a yes/no column: both words of a pair, even if only one occurs."""
    spelled = {value.lower(): value for value in values}
    meant: dict[str, str] = {}
    for pair in sorted(YES_NO, key=lambda pair: -len(set(pair) & spelled.keys())):
        if (set(pair) & spelled.keys()) - {word.lower() for word in meant}:
            given = zip(pair, ("1", "0"), strict=True)
            meant |= {spelled.get(word, word): code for word, code in given}
    return meant


def known_codes(name: str, values: list[str], allowed: tuple[str, ...]) -> dict[str, str]:
    """Canonical codes of those values of a column that are known."""
    lower = {value.lower() for value in values}
    if name == "sex" and {"h", "m"} <= lower and not lower & {"f", "w", "v", "k"}:
        words: Mapping[str, str] = {"h": "M", "m": "F"}  # hombre, mujer
        return {v: words[v.lower()] for v in values if v.lower() in words}
    known = MEANINGS.get(name, {})
    meant = {v: v if v in allowed else known.get(v.lower()) for v in values}
    return {v: m for v, m in meant.items() if m is not None}
