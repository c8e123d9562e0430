"""Splits a multipart response (PS3.18 8.6.1.2.1) while it arrives, within limits.

The reader of dicomweb-client collects a part of any size in memory; here a server that sends
without end is cut off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cac_core.sources.source import Fault, SourceError

_BOUNDARY = re.compile(r"""boundary\s*=\s*(?:"([^"]{1,200})"|([^\s;"]{1,200}))""", re.IGNORECASE)
_MAX_HEADER = 16 * 1024


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a multipart message; None where the content type names none."""
    if not content_type.strip().lower().startswith("multipart/"):
        return None
    match = _BOUNDARY.search(content_type)
    return None if match is None else (match[1] or match[2]).encode("latin-1", "replace")


def parts(chunks: Iterable[bytes], boundary: bytes, most: int) -> Iterator[bytes]:
    """The bodies of the parts in turn.

    Parameters
    ----------
    chunks : the message as it arrives.
    boundary : text between the parts.
    most : largest size of one part.

    Raises
    ------
    SourceError
        If a part is too large, or the message ends before its end mark (`away`: another attempt
        can help).
    """
    delimiter = b"\r\n--" + boundary
    buffer, searched = bytearray(b"\r\n"), 0  # the first delimiter may have no line before it
    inside = False
    for chunk in chunks:
        buffer += chunk
        while (place := buffer.find(delimiter, searched)) >= 0:
            after = place + len(delimiter)
            if len(buffer) < after + 2:
                break
            if inside:
                yield _body(buffer, place)
            inside = True
            ended = buffer[after : after + 2] == b"--"
            del buffer[:after]
            searched = 0
            if ended:
                return
        searched = max(0, len(buffer) - len(delimiter) - 2)
        if len(buffer) > most + _MAX_HEADER:
            raise SourceError(Fault.STUDY, f"an instance of more than {most // 2**20} MiB")
    raise SourceError(Fault.AWAY, "the answer ends in the middle")


def _body(buffer: bytearray, end: int) -> bytes:
    """What follows the header of the part that ends there."""
    if buffer[:4] == b"\r\n\r\n" and end >= 4:
        begin = 4
    else:
        begin = buffer.find(b"\r\n\r\n", 0, min(end, _MAX_HEADER + 4)) + 4
        if begin < 4:
            raise SourceError(Fault.STUDY, "a part of the answer has no header")
    with memoryview(buffer) as view:  # an instance has half a megabyte: copied once
        return bytes(view[begin:end])
