"""Reads malformed headers a second time, with pydicom.

pydicom repairs many encoding faults of real writers. It reads a bounded copy of the beginning of
the file, and the reader process is killed if it takes too long.
"""

from __future__ import annotations

import io
import warnings

from cac_core.dicom.byte_window import ReadAt
from cac_core.dicom.part10 import DEFLATED, RawHeader
from cac_core.quiet import silence

#: Enough for any header that can be repaired; too small for a million empty items.
_READ_BYTES = 256 * 1024


def read_with_pydicom(read: ReadAt, wanted: frozenset[int]) -> RawHeader | None:
    """Read the `wanted` elements with pydicom; None where it fails too.

    Deflated data sets are refused: pydicom inflates them without a limit.
    """
    content = read(_READ_BYTES, 0)
    if DEFLATED.encode() in content[:4096]:
        return None
    import pydicom
    from pydicom import config
    from pydicom.dataelem import RawDataElement

    # Warnings quote header values, which must not reach a terminal or a log.
    silence("pydicom")
    config.settings.reading_validation_mode = config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(
                io.BytesIO(content), stop_before_pixels=True, specific_tags=list(wanted), force=True
            )
        except Exception:  # noqa: BLE001 - pydicom raises many exceptions on corrupt bytes
            return None
        meta = dataset.file_meta
        raw = RawHeader(
            transfer_syntax=str(meta.get("TransferSyntaxUID", "")),
            media_class=str(meta.get("MediaStorageSOPClassUID", "")),
            has_preamble=content[128:132] == b"DICM",
            little_endian=bool(dataset.original_encoding[1] is not False),
            read_by_pydicom=True,
        )
        for tag in wanted:
            element = dataset.get_item(tag)
            if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
                raw.values[tag] = element.value
            elif element is not None:
                raw.values[tag] = b"sequence"
    return raw
