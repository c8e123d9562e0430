"""Recovers patient and study of a file whose header cannot be walked to StudyInstanceUID.

A sequence without an end, or nested beyond the limit, hides the elements after it. Without its
StudyInstanceUID the file belongs to no study, and a study of such files disappears. So the elements
of patient and study are searched as bytes, and accepted only where the elements after them follow
in the order of a data set, which items of a sequence do not.
"""

from __future__ import annotations

import re
import struct

from cac_core.dicom import tags
from cac_core.dicom.part10 import LONG_VRS, SHORT_VRS

#: Elements that a run may begin with.
_BEGINNINGS = (tags.PatientName, tags.PatientID, tags.StudyInstanceUID)
_UID = re.compile(rb"[0-9.]{1,64}[\0 ]*")
_MAX_BEGINNINGS = 4096
_MAX_ELEMENTS = 1000
_MAX_VALUE_BYTES = 4096
_UNDEFINED = 0xFFFFFFFF


def recover_identity(
    content: bytes, wanted: frozenset[int], little_endian: bool = True
) -> dict[int, bytes]:
    """Return the `wanted` elements from PatientName on; empty where the study is ambiguous.

    Parameters
    ----------
    content : beginning of the file, or of its inflated data set.
    wanted : tags to keep.
    little_endian : byte order of the data set.
    """
    order = "<" if little_endian else ">"
    heads = [re.escape(struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)) for tag in _BEGINNINGS]
    found: list[dict[int, bytes]] = []
    covered = 0
    for number, match in enumerate(re.finditer(b"|".join(heads), content)):
        if number >= _MAX_BEGINNINGS:
            return {}
        if match.start() < covered:
            continue
        end, values = _run(content, match.start(), order)
        if values:
            covered = end
            found.append(values)
    if len({values[tags.StudyInstanceUID].strip(b"\0 ") for values in found}) != 1:
        return {}
    return {tag: value for tag, value in found[0].items() if tag in wanted}


def _run(content: bytes, position: int, order: str) -> tuple[int, dict[int, bytes]]:
    """Walk elements of ascending tags; return their end, and their values where they are a run."""
    values: dict[int, bytes] = {}
    last = 0
    for _ in range(_MAX_ELEMENTS):
        if position + 8 > len(content):
            break
        group, element, vr, length = struct.unpack_from(order + "HH2sH", content, position)
        tag = group << 16 | element
        if group == 0xFFFE or tag <= last:
            return position, {}
        if group > 0x0028:
            break
        start = position + 8
        if vr in LONG_VRS:
            if position + 12 > len(content):
                break
            (length,) = struct.unpack_from(order + "I", content, position + 8)
            start = position + 12
        elif vr not in SHORT_VRS:
            (length,) = struct.unpack_from(order + "I", content, position + 4)
        if length == _UNDEFINED:
            break
        if start + length <= len(content) and length <= _MAX_VALUE_BYTES:
            values[tag] = content[start : start + length]
        position, last = start + length, tag
    is_run = tags.SeriesInstanceUID in values and _UID.fullmatch(
        values.get(tags.StudyInstanceUID, b"")
    )
    return position, values if is_run else {}
