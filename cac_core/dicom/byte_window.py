"""A bounded window over the bytes of a DICOM file, and the faults that end a header."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from cac_core.dicom.limits import HeaderLimits

#: Reads at most `count` bytes at `position`, in the order of arguments of `os.pread`.
ReadAt = Callable[[int, int], bytes]

FIRST_READ = 16 * 1024
_NEXT_READ = 64 * 1024


class MalformedHeaderError(Exception):
    """The bytes break the encoding rules of PS3.5."""


class TruncatedHeaderError(Exception):
    """The file ends inside its header."""


class LimitExceededError(Exception):
    """The header exceeds one of its limits."""


class NotDicomError(Exception):
    """Neither a Part 10 file nor a bare data set."""


class Window:
    """The part of a file, or of its inflated data set, that is in memory; moves on demand.

    Parameters
    ----------
    read : reads the file; None once the data set is inflated.
    size : bytes of the file.
    limits : limits on bytes and elements.
    """

    __slots__ = ("base", "buffer", "complete", "limits", "read", "size", "spent", "steps")

    def __init__(self, read: ReadAt, size: int, limits: HeaderLimits) -> None:
        self.read: ReadAt | None = read
        self.size = size
        self.limits = limits
        self.complete = True
        self.base = 0
        self.steps = 0
        first = min(FIRST_READ, limits.header_bytes)
        self.buffer = read(first, 0)
        self.spent = len(self.buffer)

    def hold(self, position: int, count: int) -> int:
        """Make `count` bytes from `position` available; return their index in `buffer`.

        Raises
        ------
        TruncatedHeaderError, LimitExceededError
            If the file ends before them, or they exceed the limit on bytes.
        """
        index = position - self.base
        if index + count <= len(self.buffer):
            return index
        if position + count > self.size:
            if not self.complete:
                raise LimitExceededError("inflated bytes")
            raise TruncatedHeaderError
        wanted = min(max(count, _NEXT_READ), self.size - position)
        if self.spent + wanted > self.limits.header_bytes:
            wanted = count
        self.spent += wanted
        if self.spent > self.limits.header_bytes:
            raise LimitExceededError("bytes")
        if self.read is None:
            raise TruncatedHeaderError
        self.buffer = self.read(wanted, position)
        self.base = position
        if len(self.buffer) < count:
            raise TruncatedHeaderError
        return 0

    def inflate(self, position: int) -> None:
        """Replace the window by the inflated data set that starts at `position` of the file.

        Raises
        ------
        MalformedHeaderError
            If the deflate stream is corrupt; the bytes before the fault are kept.
        """
        read = self._file()
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        limit = self.limits.header_bytes
        parts: list[bytes] = []
        start, total = position, 0
        while total < limit and not inflater.eof:
            chunk = inflater.unconsumed_tail or read(_NEXT_READ, position)
            if not inflater.unconsumed_tail:
                position += len(chunk)
                if not chunk:
                    break
            try:
                part = inflater.decompress(chunk, limit - total)
            except zlib.error:
                self._keep_inflated(start, limit)
                raise MalformedHeaderError("deflate") from None
            parts.append(part)
            total += len(part)
        self.complete = total < limit
        self.buffer, self.base, self.size, self.read = b"".join(parts), 0, total, None

    def _keep_inflated(self, start: int, limit: int) -> None:
        """Keep the bytes before the fault of a corrupt deflate stream: they may name the study.

        Some writers put a zlib header before the stream, against PS3.5 A.5.
        """
        content = self._file()(min(self.size - start, limit), start)
        found = [_inflated_until_fault(content, bits, limit) for bits in (-15, 15)]
        self.buffer = max(found, key=len)
        self.base, self.size, self.read = 0, len(self.buffer), None

    def remainder(self) -> bytes:
        """Return the bytes of the file, or of its inflated part, within the limits."""
        if self.read is None:
            return self.buffer
        return self.read(min(self.size, self.limits.header_bytes), 0)

    def _file(self) -> ReadAt:
        if self.read is None:
            raise MalformedHeaderError("inflated twice")
        return self.read

    def count_step(self) -> None:
        """Count one element or item against the limit."""
        self.steps += 1
        if self.steps > self.limits.elements:
            raise LimitExceededError("elements")


def _inflated_until_fault(content: bytes, window_bits: int, limit: int) -> bytes:
    inflater = zlib.decompressobj(window_bits)
    parts: list[bytes] = []
    left = limit
    try:
        # Byte by byte: a call that fails loses everything it has inflated.
        for place in range(len(content)):
            part = inflater.decompress(content[place : place + 1], left)
            parts.append(part)
            left -= len(part)
            if left <= 0 or inflater.eof:
                break
    except zlib.error:
        pass
    return b"".join(parts)
