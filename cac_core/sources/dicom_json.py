"""Headers in DICOM JSON (PS3.18 annex F) as the header reader takes them.

Only the wanted elements are converted, into the bytes that a file in Unicode would hold, so that
the same code makes the rows of `instances` from files and from metadata.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from cac_core.dicom import tags
from cac_core.dicom.header import NESTED, WANTED
from cac_core.dicom.header_values import calendar_date
from cac_core.dicom.part10 import RawHeader
from cac_core.sources.source import Fault, FoundStudy, SourceError, SourceHeader, count_of

_UTF8 = b"ISO_IR 192"
#: AvailableTransferSyntaxUID: how the instance is stored.
_SYNTAX = "00083002"
_GROUPS = ("52009229", "52009230")
_MAX_DEPTH = 8
_MAX_VALUE_BYTES = 4096
_BINARY = {"US": "<H", "SS": "<h", "UL": "<I", "SL": "<i", "FL": "<f", "FD": "<d"}
_WANTED = {f"{tag:08X}": tag for tag in WANTED}
_NESTED = {f"{tag:08X}": tag for tag in NESTED}

Item = Mapping[str, Any]


def raw_header(item: Item) -> RawHeader:
    """The wanted elements of one data set; malformed elements count as absent."""
    raw = RawHeader(has_preamble=True)
    for name in item.keys() & _WANTED.keys():
        content = _content(item[name])
        if content:
            raw.values[_WANTED[name]] = content
    raw.values[tags.SpecificCharacterSet] = _UTF8
    raw.transfer_syntax = text_of(item, _SYNTAX) or ""
    for name in _GROUPS:
        for group in _items(item.get(name)):
            _walk(group, raw, 1)
    return raw


def source_header(item: Item) -> SourceHeader:
    """The header of an instance from its metadata.

    Raises
    ------
    SourceError
        If it names no study, series or instance.
    """
    study, series, instance = (text_of(item, tag) for tag in ("0020000D", "0020000E", "00080018"))
    if not (study and series and instance):
        raise SourceError(Fault.STUDY, "headers without UIDs")
    return SourceHeader(study, series, instance, raw_header(item))


def found_study(uid: str, item: Item, stamp: str | None = None) -> FoundStudy:
    """A study as a query answers it; `stamp` changes with its content, where that is known."""
    modalities = frozenset(values_of(item, "00080061"))
    instances, series = (count_of(text_of(item, tag)) for tag in ("00201208", "00201206"))
    date = calendar_date((text_of(item, "00080020") or "").encode("latin-1", "replace"))
    described = text_of(item, "00081030")
    return FoundStudy(uid, date, modalities or None, described, instances, series, stamp)


def text_of(item: Item, name: str) -> str | None:
    """The first value of an element as text; None where it has none."""
    found = values_of(item, name)
    return found[0] if found else None


def values_of(item: Item, name: str) -> list[str]:
    """All values of an element as texts."""
    element = item.get(name)
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(values, Sequence) or isinstance(values, str):
        return []
    return [text for value in values if (text := _text(value))]


def _walk(item: Item, raw: RawHeader, depth: int) -> None:
    """Keep the first value of each wanted element in the functional groups."""
    for name, element in item.items():
        if name in _NESTED:
            content = _content(element)
            if content:
                tag = _NESTED[name]
                raw.nested.setdefault(tag, content)
                if tag == tags.ImagePositionPatient:
                    raw.positions.append(content)
        if depth < _MAX_DEPTH:
            for inner in _items(element):
                _walk(inner, raw, depth + 1)


def _items(element: object) -> list[Item]:
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(element, dict) or element.get("vr") != "SQ" or not isinstance(values, list):
        return []
    return [value for value in values if isinstance(value, dict)]


def _content(element: object) -> bytes:
    """The value of an element as bytes; empty where it has none that can be used."""
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(element, dict) or not isinstance(values, list) or not values:
        return b""
    vr = element.get("vr", "")
    if not isinstance(vr, str):
        return b""
    if vr == "SQ":
        return b"sequence"
    if vr in _BINARY:
        return _packed(_BINARY[vr], values[0])
    text = _text(values[0]) if len(values) == 1 else "\\".join(map(_text, values))
    content = text.encode("utf-8")
    return content if len(content) <= _MAX_VALUE_BYTES else b""


def _text(value: object) -> str:
    if isinstance(value, str):  # JSON can hold halves of characters
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):  # a name of a person
        parts = (value.get(part) for part in ("Alphabetic", "Ideographic", "Phonetic"))
        return "=".join(_text(part) for part in parts if part and isinstance(part, str))
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _packed(form: str, value: object) -> bytes:
    try:
        number = float(str(value))
        return struct.pack(form, number if form in ("<f", "<d") else int(number))
    except (ValueError, OverflowError, struct.error):
        return b""
