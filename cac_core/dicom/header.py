"""Reads the header of one file into one row of `instances`; never raises, never reads pixels.

Identifiers are turned into keys here, and free texts are scrubbed of the patient, before anything
leaves this module. It imports neither pyarrow nor (unless a file is odd) pydicom, because its
worker processes start by the dozen and must start fast.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from collections.abc import Callable
from datetime import date
from functools import lru_cache

from cac_core.dicom.part10 import (
    DEFLATED,
    POSITION,
    UNCOMPRESSED,
    HeaderLimits,
    LimitExceeded,
    MalformedHeader,
    NotDicom,
    RawHeader,
    TruncatedHeader,
    Window,
    walk_header,
)
from cac_core.dicom.scrub import Identity, decode_text, scrub_free_text, scrub_word_wise
from cac_core.keys import Keyring
from schemas.codes import FileReason

_DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
#: CT Image Storage, Enhanced CT, Legacy Converted Enhanced CT (PS3.4 B.5).
CT_IMAGE_CLASSES = frozenset(
    (
        "1.2.840.10008.5.1.4.1.1.2",
        "1.2.840.10008.5.1.4.1.1.2.1",
        "1.2.840.10008.5.1.4.1.1.2.2",
    )
)

_CHARSET, _NAME, _PATIENT_ID, _ACCESSION = 0x00080005, 0x00100010, 0x00100020, 0x00080050
_BIRTH_DATE, _OTHER_IDS, _OTHER_NAMES, _BIRTH_NAME = 0x00100030, 0x00101000, 0x00101001, 0x00101005
_STUDY_UID, _SERIES_UID, _SOP_UID, _FRAME_UID = 0x0020000D, 0x0020000E, 0x00080018, 0x00200052
_STUDY_DATE, _ORIENTATION, _SPACING = 0x00080020, 0x00200037, 0x00280030
_AGENT, _AGENT_SEQUENCE = 0x00180010, 0x00180012
_SAMPLES = 0x00280002

_CODES = {
    "SOPClassUID": 0x00080016,
    "Modality": 0x00080060,
    "LossyImageCompression": 0x00282110,
}
_FREE_TEXTS = {
    "SeriesDescription": 0x0008103E,
    "StudyDescription": 0x00081030,
    "ProtocolName": 0x00181030,
}
_DEVICE_TEXTS = {
    "ImageType": 0x00080008,
    "Manufacturer": 0x00080070,
    "ManufacturerModelName": 0x00081090,
    "ConvolutionKernel": 0x00181210,
}
_INTEGER_STRINGS = {
    "SeriesNumber": 0x00200011,
    "AcquisitionNumber": 0x00200012,
    "InstanceNumber": 0x00200013,
    "NumberOfFrames": 0x00280008,
}
_SHORTS = {"Rows": 0x00280010, "Columns": 0x00280011, "BitsAllocated": 0x00280100}
_DECIMALS = {
    "SliceThickness": 0x00180050,
    "KVP": 0x00180060,
    "XRayTubeCurrent": 0x00181151,
    "Exposure": 0x00181152,
    "ReconstructionDiameter": 0x00181100,
    "GantryDetectorTilt": 0x00181120,
}
#: The same quantities as binary doubles in the functional groups of Enhanced CT.
_DOUBLES = {
    "XRayTubeCurrent": 0x00189330,
    "Exposure": 0x00189332,
    "ReconstructionDiameter": 0x00189317,
}
#: TriggerTime, TriggerSourceOrType, NominalInterval, HeartRate: numbers or texts that gating sets.
_GATING = (0x00181060, 0x00181061, 0x00181062, 0x00181088)
_SYNCHRONISATION = 0x00189037
_CARDIAC_PHASE = 0x00209241

WANTED = frozenset(
    (_CHARSET, _NAME, _PATIENT_ID, _ACCESSION, _BIRTH_DATE, _OTHER_IDS, _OTHER_NAMES, _BIRTH_NAME)
    + (_STUDY_UID, _SERIES_UID, _SOP_UID, _FRAME_UID, _STUDY_DATE, POSITION, _ORIENTATION)
    + (_SPACING, _AGENT, _AGENT_SEQUENCE, _SAMPLES, _SYNCHRONISATION, *_GATING)
    + tuple(_CODES.values())
    + tuple(_FREE_TEXTS.values())
    + tuple(_DEVICE_TEXTS.values())
    + tuple(_INTEGER_STRINGS.values())
    + tuple(_SHORTS.values())
    + tuple(_DECIMALS.values())
)
NESTED = frozenset(
    (POSITION, _ORIENTATION, _SPACING, _CARDIAC_PHASE, _AGENT, 0x00181210)
    + tuple(_DECIMALS.values())
    + tuple(_DOUBLES.values())
)

#: What `read_header` gives, in this order: the columns of `instances` that come from the header.
HEADER_COLUMNS: tuple[str, ...] = (
    *("reason", "study_key", "patient_key", "SeriesInstanceUID", "SOPInstanceUID"),
    *("FrameOfReferenceUID", "SOPClassUID", "TransferSyntaxUID", "Modality", "study_date"),
    *("ImageType", "SeriesDescription", "StudyDescription", "ProtocolName", "Manufacturer"),
    *("ManufacturerModelName", "ConvolutionKernel", "LossyImageCompression", "SeriesNumber"),
    *("AcquisitionNumber", "InstanceNumber", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "row_spacing_mm", "column_spacing_mm", "SliceThickness"),
    *("position_x_mm", "position_y_mm", "position_z_mm"),
    *("row_cosine_x", "row_cosine_y", "row_cosine_z"),
    *("column_cosine_x", "column_cosine_y", "column_cosine_z"),
    *("frame_increment_mm", "frame_coverage_mm", "KVP", "XRayTubeCurrent", "Exposure"),
    *("ReconstructionDiameter", "GantryDetectorTilt", "has_contrast_agent", "has_gating"),
    "pixel_data_offset",
)
_POSITION_COLUMNS = ("position_x_mm", "position_y_mm", "position_z_mm")
_COSINE_COLUMNS = (
    *("row_cosine_x", "row_cosine_y", "row_cosine_z"),
    *("column_cosine_x", "column_cosine_y", "column_cosine_z"),
)

HeaderRow = tuple[object, ...]


def read_header(path: str, keyring: Keyring, limits: HeaderLimits) -> HeaderRow:
    """Read one file's header; whatever the file holds, the answer is a row.

    Parameters
    ----------
    path : file to read; followed where it is a link.
    keyring : makes the keys and pseudonyms.
    limits : what reading may cost in bytes, elements and depth.

    Returns
    -------
    Values of `HEADER_COLUMNS`; where the file is no instance, `reason` and whatever of study and
    series could be read before the fault, else a tuple of one: `(reason,)`.
    """
    try:
        return _read(path, keyring, limits)
    except (MemoryError, RecursionError):
        return (FileReason.HEADER_LIMITS.value,)
    except Exception:  # noqa: BLE001 - any fault of a foreign file is that file's row
        return (FileReason.UNREADABLE_HEADER.value,)


def _read(path: str, keyring: Keyring, limits: HeaderLimits) -> HeaderRow:
    try:
        # O_NONBLOCK: a pipe that took the file's place must not hold up the reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return (FileReason.VANISHED.value,)
    except OSError:
        return (FileReason.NO_PERMISSION.value,)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return (FileReason.NOT_DICOM.value,)
        if status.st_size == 0:
            return (FileReason.EMPTY_FILE.value,)
        return _read_descriptor(descriptor, status.st_size, keyring, limits)
    except OSError:
        return (FileReason.NO_PERMISSION.value,)
    finally:
        os.close(descriptor)


def _read_descriptor(
    descriptor: int, size: int, keyring: Keyring, limits: HeaderLimits
) -> HeaderRow:
    raw = RawHeader()
    reason: FileReason | None = None
    try:
        walk_header(Window(descriptor, size, limits), raw, WANTED, NESTED)
    except NotDicom:
        return (FileReason.NOT_DICOM.value,)
    except TruncatedHeader:
        reason = FileReason.TRUNCATED
    except LimitExceeded:
        reason = FileReason.HEADER_LIMITS
    except MalformedHeader:
        reason = FileReason.UNREADABLE_HEADER
        if raw.transfer_syntax != DEFLATED:  # pydicom would inflate without bound
            from cac_core.dicom.lenient import reread

            lenient = reread(descriptor, WANTED)
            if lenient is not None and _has_uids(lenient):
                raw, reason = lenient, None
    if raw.media_class == _DICOMDIR_CLASS:
        return (FileReason.DICOMDIR.value,)
    if not raw.has_preamble and not _names_an_object(raw):
        return (FileReason.NOT_DICOM.value,)
    if reason is None:
        reason = _missing_uid(raw) or _pixel_fault(raw, size)
    row = _row(raw, keyring)
    row["reason"] = None if reason is None else reason.value
    return tuple(map(row.get, HEADER_COLUMNS))


def _has_uids(raw: RawHeader) -> bool:
    return all(_uid(raw.values, tag) for tag in (_STUDY_UID, _SERIES_UID, _SOP_UID))


def _names_an_object(raw: RawHeader) -> bool:
    """Whether bytes without preamble turned out to be a data set, not a chance likeness."""
    kinds = (_CODES["SOPClassUID"], _CODES["Modality"], _STUDY_UID)
    return bool(raw.media_class) or any(raw.values.get(tag) for tag in kinds)


def _missing_uid(raw: RawHeader) -> FileReason | None:
    if not _uid(raw.values, _STUDY_UID):
        return FileReason.MISSING_STUDY_UID
    if not _uid(raw.values, _SERIES_UID):
        return FileReason.MISSING_SERIES_UID
    if not _uid(raw.values, _SOP_UID) or not _uid(raw.values, _CODES["SOPClassUID"]):
        return FileReason.MISSING_SOP_UID
    return None


def _pixel_fault(raw: RawHeader, size: int) -> FileReason | None:
    """`TRUNCATED` where a CT image holds fewer pixel bytes than its header declares."""
    if _uid(raw.values, _CODES["SOPClassUID"]) not in CT_IMAGE_CLASSES:
        return None
    if raw.pixel_offset is None:
        return None if raw.lenient else FileReason.TRUNCATED
    if raw.transfer_syntax not in UNCOMPRESSED or raw.pixel_length is None:
        return None
    shape = [_short(raw, tag) for tag in (0x00280010, 0x00280011, 0x00280100)]
    frames = _whole(raw.values.get(_INTEGER_STRINGS["NumberOfFrames"], b"")) or 1
    samples = _short(raw, _SAMPLES) or 1
    rows, columns, bits = (value or 0 for value in shape)
    expected = (rows * columns * bits * samples * frames + 7) // 8
    held = min(raw.pixel_length, size - raw.pixel_offset)
    return FileReason.TRUNCATED if held < max(raw.pixel_length, expected) else None


def _row(raw: RawHeader, keyring: Keyring) -> dict[str, object]:
    values, nested = raw.values, raw.nested
    charset = values.get(_CHARSET, b"")
    identity = _identity(raw, charset)
    patient = decode_text(values.get(_PATIENT_ID, b""), charset)
    study, series = _uid(values, _STUDY_UID), _uid(values, _SERIES_UID)
    instance, frame = _uid(values, _SOP_UID), _uid(values, _FRAME_UID)
    row: dict[str, object] = {
        "study_key": _study_key(keyring, study) if study else None,
        "patient_key": _patient_key(keyring, patient) if patient else None,
        "SeriesInstanceUID": _pseudonym(keyring, series) if series else None,
        "SOPInstanceUID": keyring.pseudonym_uid(instance) if instance else None,
        "FrameOfReferenceUID": _pseudonym(keyring, frame) if frame else None,
        "TransferSyntaxUID": _code(raw.transfer_syntax.encode("latin-1")),
        "study_date": _date(values.get(_STUDY_DATE, b"")),
        "has_contrast_agent": _has_contrast(raw, charset),
        "has_gating": _has_gating(raw),
        "pixel_data_offset": None if raw.transfer_syntax == DEFLATED else raw.pixel_offset,
    }
    for name, tag in _CODES.items():
        row[name] = _code(values.get(tag, b""))
    for name, tag in _FREE_TEXTS.items():
        row[name] = scrub_free_text(values.get(tag, b""), charset, identity)
    for name, tag in _DEVICE_TEXTS.items():
        row[name] = scrub_word_wise(values.get(tag) or nested.get(tag, b""), charset, identity)
    for name, tag in _INTEGER_STRINGS.items():
        row[name] = _whole(values.get(tag, b""))
    for name, tag in _SHORTS.items():
        row[name] = _short(raw, tag)
    for name, tag in _DECIMALS.items():
        row[name] = _decimal(values.get(tag) or nested.get(tag, b""))
    if nested:
        for name, tag in _DOUBLES.items():
            if row[name] is None:
                row[name] = _double(nested.get(tag, b""), raw.little_endian)
    row.update(_geometry(raw))
    return row


def _identity(raw: RawHeader, charset: bytes) -> Identity:
    get = raw.values.get
    names = (get(_NAME, b""), get(_OTHER_NAMES, b""), get(_BIRTH_NAME, b""))
    numbers = (get(_PATIENT_ID, b""), get(_ACCESSION, b""), get(_OTHER_IDS, b""))
    return Identity(names, numbers, get(_BIRTH_DATE, b""), charset)


def _geometry(raw: RawHeader) -> dict[str, object]:
    """Position, orientation and spacing; of multi-frame objects the first frame's."""
    values, nested = raw.values, raw.nested
    row: dict[str, object] = {}
    spacing = _decimals(values.get(_SPACING) or nested.get(_SPACING, b""), 2)
    if spacing is not None:
        row["row_spacing_mm"], row["column_spacing_mm"] = spacing
    orientation = _decimals(values.get(_ORIENTATION) or nested.get(_ORIENTATION, b""), 6)
    if orientation is not None:
        row.update(zip(_COSINE_COLUMNS, orientation, strict=True))
    first = values.get(POSITION) or (raw.positions[0] if raw.positions else b"")
    position = _decimals(first, 3)
    if position is not None:
        row.update(zip(_POSITION_COLUMNS, position, strict=True))
    if len(raw.positions) > 1 and orientation is not None:
        row.update(_frame_spacing(raw.positions, orientation))
    return row


def _frame_spacing(positions: list[bytes], orientation: tuple[float, ...]) -> dict[str, object]:
    """Increment and coverage of the frames along the normal of the first (PS3.3 C.7.6.2.1.1)."""
    a, b, c, d, e, f = orientation
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    places = []
    for content in positions:
        point = _decimals(content, 3)
        if point is None:
            return {}
        places.append(sum(p * n for p, n in zip(point, normal, strict=True)))
    places.sort()
    gaps = sorted(after - before for before, after in zip(places, places[1:], strict=False))
    middle = len(gaps) // 2
    median = gaps[middle] if len(gaps) % 2 else (gaps[middle - 1] + gaps[middle]) / 2
    return {"frame_increment_mm": median, "frame_coverage_mm": places[-1] - places[0]}


_NO_AGENT = frozenset(("", "none", "no", "n", "0", "without", "ohne", "sans", "non", "nein"))


def _has_contrast(raw: RawHeader, charset: bytes) -> bool:
    agent = raw.values.get(_AGENT) or raw.nested.get(_AGENT, b"")
    text = decode_text(agent, charset) if agent else ""
    named = text.strip(" .-_/").casefold() not in _NO_AGENT
    return named or bool(raw.values.get(_AGENT_SEQUENCE))


def _has_gating(raw: RawHeader) -> bool:
    for tag in _GATING:
        content = raw.values.get(tag, b"").strip(b" \0")
        if content and _decimal(content) != 0.0:
            return True
    technique = raw.values.get(_SYNCHRONISATION, b"").strip(b" \0")
    return technique not in (b"", b"NONE") or bool(raw.nested.get(_CARDIAC_PHASE))


@lru_cache(maxsize=64)
def _study_key(keyring: Keyring, uid: str) -> str:
    return keyring.study_key(uid)


@lru_cache(maxsize=64)
def _patient_key(keyring: Keyring, patient_id: str) -> str:
    return keyring.patient_key(patient_id)


@lru_cache(maxsize=256)
def _pseudonym(keyring: Keyring, uid: str) -> str:
    return keyring.pseudonym_uid(uid)


def _uid(values: dict[int, bytes], tag: int) -> str:
    return values.get(tag, b"").decode("latin-1").strip(" \0\t\r\n")


_CODE_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._ ")


@lru_cache(maxsize=256)
def _code(content: bytes) -> str | None:
    """A defined term or standard UID; anything else a broken header puts there is dropped."""
    text = content.decode("latin-1").strip(" \0")
    return text if text and len(text) <= 64 and _CODE_CHARACTERS.issuperset(text) else None


@lru_cache(maxsize=256)
def _date(content: bytes) -> date | None:
    digits = content.decode("latin-1").strip(" \0").replace(".", "")
    if len(digits) != 8 or not (digits.isascii() and digits.isdigit()):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def _whole(content: bytes) -> int | None:
    """An integer string (IS) within 32 bits, else None."""
    try:
        number = int(content.strip(b" \0")) if len(content) <= 16 else None
    except ValueError:
        return None
    return number if number is not None and -(2**31) <= number < 2**31 else None


def _short(raw: RawHeader, tag: int) -> int | None:
    """An unsigned binary integer (US, UL), else None."""
    content = raw.values.get(tag, b"")
    if len(content) not in (2, 4):
        return None
    number = int.from_bytes(content, "little" if raw.little_endian else "big")
    return number if number < 2**31 else None


def _decimal(content: bytes) -> float | None:
    """A single decimal string (DS) that is a finite, plausible number, else None."""
    try:
        number = float(content.strip(b" \0")) if len(content) <= 32 else math.nan
    except ValueError:
        return None
    return number if abs(number) < 1e9 else None


def _decimals(content: bytes, count: int) -> tuple[float, ...] | None:
    """Exactly `count` decimal strings, else None."""
    parts = content.split(b"\\") if content else ()
    if len(parts) != count:
        return None
    numbers = [_decimal(part) for part in parts]
    kept = tuple(number for number in numbers if number is not None)
    return kept if len(kept) == count else None


def _double(content: bytes, little_endian: bool) -> float | None:
    """A binary double (FD), else None."""
    if len(content) != 8:
        return None
    (number,) = struct.unpack("<d" if little_endian else ">d", content)
    return float(number) if abs(number) < 1e9 else None


#: Signature of `read_header`, for those who stand in for it in tests.
HeaderReader = Callable[[str, Keyring, HeaderLimits], HeaderRow]
