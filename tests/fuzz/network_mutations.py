"""Mutations of what a PACS sends: multipart messages, and DICOM JSON as a tree of values."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

from tests.fuzz.mutations import mutated

_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e308, float("nan"), float("inf"), 10**30, -(10**18)),
    *("", " ", "\0", "\ud800", "\\", "1\\2\\3", "..", "../../etc/passwd", "1.2.3", "9" * 70),
    *("nan", "-inf", "1e400", "20240230", "Mü^Ö", "A" * 5000, "1" * 5000, "٣", "²"),
    *([], {}, [[]], [None], [{}], {"Value": []}, {"vr": "SQ", "Value": [{}, None, 1]}),
    *({"Alphabetic": {}}, {"Alphabetic": "A=B^C\\D"}, {"vr": 1, "Value": [1]}, {"vr": []}),
    *({"vr": "OW", "BulkDataURI": "file:///etc/passwd"}, {"vr": "OB", "InlineBinary": "===="}),
)
_ODD_VRS = ("SQ", "PN", "US", "SS", "UL", "FL", "FD", "AT", "OB", "OW", "UN", "DS", "IS", "XX", "")
_ODD_TAGS = (
    *("00080018", "0020000D", "0020000E", "00080060", "00280008", "00280010", "00280011"),
    *("52009229", "52009230", "00083002", "7FE00010", "00020010", "00201208", "00080061"),
    *("00080020", "FFFEE000", "00000000", "zz", "0008001", "00090010", "0020000d"),
)


def built_message(bodies: list[bytes], boundary: bytes, rng: random.Random) -> bytes:
    """A multipart message as servers send it, with and without headers of the parts."""
    message = rng.choice((b"", b"\r\n", b"a preamble"))
    for body in bodies:
        # A delimiter stands on a line of its own, except at the very beginning.
        message += b"\r\n--" if message else b"--"
        head = rng.choice((b"", b"Content-Type: application/dicom\r\n", b"A: b\r\nC: d\r\n"))
        message += boundary + b"\r\n" + head + b"\r\n" + body
    return message + b"\r\n--" + boundary + b"--" + rng.choice((b"", b"\r\n", b"an epilogue"))


def mutated_message(message: bytes, boundary: bytes, rng: random.Random) -> bytes:
    """The message with bytes changed, or with delimiters and headers where none belong."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        if rng.random() < 0.4:
            message = mutated(message, rng, dicom=False)
            continue
        delimiter = b"\r\n--" + boundary
        at = rng.randrange(len(message) + 1)
        found = message.find(delimiter, at)
        part = rng.choice(
            (
                *(delimiter, delimiter + b"--", delimiter + b"\r\n\r\n", delimiter[:-1], b"\r\n--"),
                *(b"\r\n\r\n", delimiter * 40, b"X: " + b"y" * 20_000, delimiter + b"-"),
            )
        )
        if found >= 0 and rng.random() < 0.5:
            end = found + rng.choice((0, 2, len(delimiter), len(delimiter) + 2))
            message = message[:found] + rng.choice((b"", part)) + message[end:]
        else:
            message = message[:at] + part + message[at:]
    return message


def chunks_of(message: bytes, rng: random.Random) -> Iterator[bytes]:
    """The message in pieces as a network might deliver it, some of them empty."""
    largest = rng.choice((1, 3, 40, 1000, 2**20)) if len(message) < 5000 else 2**14
    at = 0
    while at < len(message):
        size = rng.randrange(largest + 1) if largest > 1 else 1
        yield message[at : at + size]
        at += size


def mutated_item(item: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A copy of a data set in DICOM JSON with values, VRs and tags changed, or deeply nested."""
    changed: dict[str, Any] = _copy(item)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        places = list(islice(_places(changed), 2000))
        kind = rng.random()
        if not places or kind < 0.15:
            changed[rng.choice(_ODD_TAGS)] = _odd(rng)
            continue
        holder, name = rng.choice(places)
        if kind < 0.5:
            holder[name] = _odd(rng)
        elif kind < 0.6 and isinstance(holder, dict):
            holder[rng.choice(_ODD_TAGS)] = holder.pop(name)
        elif kind < 0.7:
            del holder[name]
        elif kind < 0.8:
            for _ in range(rng.choice((1, 9, 60))):
                holder[name] = {"52009230": {"vr": "SQ", "Value": [holder[name]]}}
        elif kind < 0.9:
            holder[name] = {"vr": rng.choice(_ODD_VRS), "Value": [_odd(rng)] * rng.choice((1, 9))}
        else:
            times = 2 if isinstance(holder[name], dict | list) else rng.choice((2, 200))
            holder[name] = [_copy(holder[name]) for _ in range(times)]
    return changed


def _odd(rng: random.Random) -> Any:
    return _copy(rng.choice(_ODD_VALUES))


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(inner) for name, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Every holder of a value and the name or number of the value in it."""
    named = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in list(named):
        yield value, name
        if isinstance(inner, dict | list) and depth < 12:
            yield from _places(inner, depth + 1)
