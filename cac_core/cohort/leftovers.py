"""Searches files of any kind for what identifies a withdrawn patient.

Parquet column by column; archives (zip, so also Word and Excel, and gzip) member by member; PDF by
its text and metadata; PNG and TIFF by their metadata; anything else byte by byte.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError
from pypdf import PdfReader
from pypdf.errors import PyPdfError

from cac_core.cohort.forgotten import KEY_COLUMNS, Forgotten

#: Pseudonyms as they occur in files: keys and digests, and replacement UIDs.
_TOKEN = re.compile(rb"(?<![0-9a-z.])2\.25\.[0-9]{1,39}|(?<![0-9a-f])[0-9a-f]{32,64}(?![0-9a-f])")
_KEY_LENGTH = 32
#: Shorter identifiers occur everywhere as numbers, and are sought in columns of identifiers only.
_MIN_IDENTIFIER = 5
#: Values that are searched at once.
_AT_ONCE = 200_000
#: Chunks of a PNG that can hold text; others hold pixels.
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")


class UnsearchableError(Exception):
    """A file of a known kind whose content cannot be read."""


@dataclass(frozen=True)
class Search:
    """What to search for: withdrawn keys, further pseudonyms, and identifiers.

    Parameters
    ----------
    forgotten : recognises every withdrawn patient_key and study_key.
    pseudonyms : other keys, digests and replacement UIDs.
    identifiers : patient identifiers and accession numbers as they are written.
    """

    forgotten: Forgotten
    pseudonyms: frozenset[str]
    identifiers: frozenset[str]

    def found_in(self, stream: IO[bytes]) -> bool:
        """Whether a file holds any of them.

        Raises
        ------
        UnsearchableError
            If it is damaged.
        """
        start = stream.read(8)
        stream.seek(0)
        try:
            if start[:4] == b"PAR1":
                return self._in_parquet(stream)
            if start[:2] == b"\x1f\x8b":
                return self.found_in(io.BytesIO(gzip.decompress(stream.read())))
            if start[:4] == b"PK\x03\x04":
                return self._in_zip(stream)
            if start[:5] == b"%PDF-":
                return self._in_pdf(stream)
            if start[:8] == b"\x89PNG\r\n\x1a\n" or start[:4] in (b"II*\0", b"MM\0*"):
                return self._in_picture(stream)
        except (pa.ArrowInvalid, zipfile.BadZipFile, zlib.error, PyPdfError, EOFError) as error:
            raise UnsearchableError(type(error).__name__) from None
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise UnsearchableError(type(error).__name__) from None
        return self.found_in_bytes(stream.read())

    def found_in_bytes(self, data: bytes, *, known_column: str | None = None) -> bool:
        """Whether bytes of text hold any of them.

        Parameters
        ----------
        known_column : column of a table that the text comes from, if any.
        """
        keyed = known_column is None or known_column in KEY_COLUMNS or not _is_key(known_column)
        for token in set(_TOKEN.findall(data)):
            text = token.decode("ascii")
            if text in self.pseudonyms:
                return True
            if keyed and len(text) == _KEY_LENGTH and self.forgotten.holds(text):
                return True
        return any(
            re.search(rb"(?<![0-9A-Za-z])" + re.escape(value) + rb"(?![0-9A-Za-z])", data)
            for value in self._written(known_column)
        )

    def _written(self, column: str | None) -> Iterator[bytes]:
        """Identifiers as bytes; in HTML some characters are escaped."""
        for value in self.identifiers:
            if len(value) >= _MIN_IDENTIFIER or column in ("patient_id", "accession_number"):
                yield value.encode("utf-8", "surrogateescape")

    def _in_parquet(self, stream: IO[bytes]) -> bool:
        file = pq.ParquetFile(stream)
        if self.found_in_bytes(repr(file.metadata.metadata).encode()):
            return True
        for field in file.schema_arrow:
            if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
                values = file.read([field.name])[0].unique().drop_null()
                for begin in range(0, len(values), _AT_ONCE):
                    part = values.slice(begin, _AT_ONCE).to_pylist()
                    if self.found_in_bytes(
                        "\n".join(part).encode("utf-8", "surrogateescape"), known_column=field.name
                    ):
                        return True
            elif pa.types.is_binary(field.type) and self._in_pictures(file, field.name):
                return True
        return False

    def _in_pictures(self, file: pq.ParquetFile, column: str) -> bool:
        for batch in file.iter_batches(columns=[column], batch_size=256):
            for data in batch[0].drop_null().to_pylist():
                if any(kind in data for kind in _PNG_TEXT) and self.found_in(io.BytesIO(data)):
                    return True
        return False

    def _in_zip(self, stream: IO[bytes]) -> bool:
        with zipfile.ZipFile(stream) as archive:
            names = "\n".join(archive.namelist()).encode("utf-8", "surrogateescape")
            return self.found_in_bytes(names + archive.comment) or any(
                self.found_in(io.BytesIO(archive.read(item)))
                for item in archive.infolist()
                if not item.is_dir()
            )

    def _in_pdf(self, stream: IO[bytes]) -> bool:
        reader = PdfReader(stream)
        texts: list[str] = [str(value) for value in (reader.metadata or {}).values()]
        texts += [page.extract_text() for page in reader.pages]
        texts += [str(item.get("/Title", "")) for item in _outline(reader.outline)]
        stream.seek(0)
        return self.found_in_bytes("\n".join(texts).encode("utf-8", "replace")) or (
            self.found_in_bytes(stream.read())
        )

    def _in_picture(self, stream: IO[bytes]) -> bool:
        with Image.open(stream) as image:
            image.load()  # texts can follow the pixels
            texts = [*map(str, image.info.values()), *map(str, image.getexif().values())]
            tags = getattr(image, "tag_v2", {})
            texts += [str(value) for value in dict(tags).values()]
        return self.found_in_bytes("\n".join(texts).encode("utf-8", "replace"))


def _is_key(column: str) -> bool:
    """Whether a column holds keys of something else than patients and studies."""
    return column.endswith(("_key", "_digest")) or column.endswith("UID")


def _outline(entries: Any) -> Iterator[Any]:
    """Bookmarks of a PDF, of all levels."""
    for entry in entries:
        if isinstance(entry, list):
            yield from _outline(entry)
        else:
            yield entry
