"""Reads the header of one file into one row of `instances`; never raises, never reads pixels.

Identifiers are turned into keys here, and free texts are scrubbed of the patient, before anything
leaves this module. It imports neither pyarrow nor (unless a file is odd) pydicom, because its
worker processes start by the dozen and must start fast.
"""

from __future__ import annotations

import os
import stat
from datetime import date
from functools import lru_cache

from cac_core.dicom.deidentify import (
    MASK,
    Identity,
    decode_text,
    described_text,
    mask_anywhere,
    mask_whole_words,
)
from cac_core.dicom.descriptions import (
    TextPolicy,
    defined_modality,
    listed_terms,
    reduce_description,
    reduce_device_text,
    reduce_image_type,
    same_answers,
)
from cac_core.dicom.header_geometry import ORIENTATION, SPACING, geometry_columns
from cac_core.dicom.header_values import (
    binary_double,
    calendar_date,
    decimal_string,
    integer_string,
    lossy_code,
    repaired_date,
    seconds_of_day,
    standard_uid,
    uid_text,
    unsigned_integer,
)
from cac_core.dicom.part10 import (
    DEFLATED,
    POSITION,
    UNCOMPRESSED,
    HeaderLimits,
    LimitExceededError,
    MalformedHeaderError,
    NotDicomError,
    RawHeader,
    TruncatedHeaderError,
    Window,
    walk_header,
)
from cac_core.dicom.uid_recovery import recover_identity
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
_STUDY_DATE = 0x00080020
_AGENT, _AGENT_SEQUENCE = 0x00180010, 0x00180012
_SAMPLES, _KERNEL, _IMAGE_TYPE = 0x00280002, 0x00181210, 0x00080008
_NAMES = (_NAME, _OTHER_NAMES, _BIRTH_NAME, 0x00101060, 0x00102297)
_OTHER_DATES = {"SeriesDate": 0x00080021, "AcquisitionDate": 0x00080022, "ContentDate": 0x00080023}
#: AcquisitionTime, SeriesTime.
_TIMES = (0x00080032, 0x00080031)

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
    "Manufacturer": 0x00080070,
    "ManufacturerModelName": 0x00081090,
    "ConvolutionKernel": _KERNEL,
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
_SEX = 0x00100040
#: TriggerTime and NominalInterval (of the heart beats): set where the scan was gated.
_GATING = (0x00181060, 0x00181062)
_SYNCHRONISATION = 0x00189037
_CARDIAC_PHASE = 0x00209241

WANTED = frozenset(
    (
        *(_CHARSET, _PATIENT_ID, _ACCESSION, _BIRTH_DATE, _SEX),
        *(_OTHER_IDS, _IMAGE_TYPE, *_NAMES, *_OTHER_DATES.values(), *_TIMES),
        *(_STUDY_UID, _SERIES_UID, _SOP_UID, _FRAME_UID, _STUDY_DATE, POSITION, ORIENTATION),
        *(SPACING, _AGENT, _AGENT_SEQUENCE, _SAMPLES, _SYNCHRONISATION, *_GATING),
        *_CODES.values(),
        *_FREE_TEXTS.values(),
        *_DEVICE_TEXTS.values(),
        *_INTEGER_STRINGS.values(),
        *_SHORTS.values(),
        *_DECIMALS.values(),
    )
)
NESTED = frozenset(
    (
        *(POSITION, ORIENTATION, SPACING, _CARDIAC_PHASE, _AGENT, _KERNEL),
        *_DECIMALS.values(),
        *_DOUBLES.values(),
    )
)

#: What `read_header` gives, in this order: the columns of `instances` that come from the header.
HEADER_COLUMNS: tuple[str, ...] = (
    *("reason", "study_key", "patient_key", "accession_key"),
    *("SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"),
    *("SOPClassUID", "TransferSyntaxUID", "Modality", "study_date"),
    *("study_date_source", "acquisition_time_s"),
    *("ImageType", "SeriesDescription", "StudyDescription", "ProtocolName", "Manufacturer"),
    *("ManufacturerModelName", "ConvolutionKernel", "LossyImageCompression", "SeriesNumber"),
    *("AcquisitionNumber", "InstanceNumber", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "row_spacing_mm", "column_spacing_mm", "SliceThickness"),
    *("position_x_mm", "position_y_mm", "position_z_mm"),
    *("row_cosine_x", "row_cosine_y", "row_cosine_z"),
    *("column_cosine_x", "column_cosine_y", "column_cosine_z"),
    *("frame_increment_mm", "frame_coverage_mm", "KVP", "XRayTubeCurrent", "Exposure"),
    *("ReconstructionDiameter", "GantryDetectorTilt", "has_contrast_agent", "has_gating"),
    *("PatientSex", "patient_birth_year"),
    "pixel_data_offset",
)
HeaderRow = tuple[object, ...]


def read_header(
    path: str,
    keyring: Keyring,
    limits: HeaderLimits,
    texts: TextPolicy = TextPolicy(),  # noqa: B008 - immutable
) -> HeaderRow:
    """Read one file's header; whatever the file holds, the answer is a row.

    Parameters
    ----------
    path : file to read; followed where it is a link.
    keyring : makes the keys and pseudonyms.
    limits : what reading may cost in bytes, elements and depth.
    texts : which words of descriptions are kept; by default listed terms only.

    Returns
    -------
    Values of `HEADER_COLUMNS`; where the file is no instance, `reason` and whatever of study and
    series could be read before the fault, else a tuple of one: `(reason,)`.
    """
    try:
        return _read(path, keyring, limits, texts)
    except (MemoryError, RecursionError):
        return (FileReason.HEADER_LIMITS.value,)
    except Exception:  # noqa: BLE001 - any fault of a foreign file is that file's row
        return (FileReason.UNREADABLE_HEADER.value,)


def _read(path: str, keyring: Keyring, limits: HeaderLimits, texts: TextPolicy) -> HeaderRow:
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
        return _read_descriptor(descriptor, status.st_size, keyring, limits, texts)
    except OSError:
        return (FileReason.NO_PERMISSION.value,)
    finally:
        os.close(descriptor)


def _read_descriptor(
    descriptor: int, size: int, keyring: Keyring, limits: HeaderLimits, texts: TextPolicy
) -> HeaderRow:
    raw = RawHeader()
    reason: FileReason | None = None
    window = Window(descriptor, size, limits)
    try:
        walk_header(window, raw, WANTED, NESTED)
    except NotDicomError:
        return (FileReason.NOT_DICOM.value,)
    except TruncatedHeaderError:
        reason = FileReason.TRUNCATED
    except LimitExceededError:
        reason = FileReason.HEADER_LIMITS
    except MalformedHeaderError:
        reason = FileReason.UNREADABLE_HEADER
        if raw.transfer_syntax != DEFLATED:  # pydicom would inflate without bound
            from cac_core.dicom.pydicom_fallback import read_with_pydicom

            fallback = read_with_pydicom(descriptor, WANTED)
            if fallback is not None and _has_uids(fallback):
                raw, reason = fallback, None
    if reason is not None and not uid_text(raw.values, _STUDY_UID):
        raw.values.update(recover_identity(window.remainder(), WANTED, raw.little_endian))
    if raw.media_class == _DICOMDIR_CLASS:
        return (FileReason.DICOMDIR.value,)
    if not raw.has_preamble and not _names_an_object(raw):
        return (FileReason.NOT_DICOM.value,)
    if reason is None:
        reason = _missing_uid(raw) or _pixel_fault(raw, size)
    row = _row(raw, keyring, texts)
    row["reason"] = None if reason is None else reason.value
    return tuple(map(row.get, HEADER_COLUMNS))


def _has_uids(raw: RawHeader) -> bool:
    return all(uid_text(raw.values, tag) for tag in (_STUDY_UID, _SERIES_UID, _SOP_UID))


def _names_an_object(raw: RawHeader) -> bool:
    """Whether bytes without preamble turned out to be a data set, not a chance likeness."""
    kinds = (_CODES["SOPClassUID"], _CODES["Modality"], _STUDY_UID)
    return bool(raw.media_class) or any(raw.values.get(tag) for tag in kinds)


def _missing_uid(raw: RawHeader) -> FileReason | None:
    if not uid_text(raw.values, _STUDY_UID):
        return FileReason.MISSING_STUDY_UID
    if not uid_text(raw.values, _SERIES_UID):
        return FileReason.MISSING_SERIES_UID
    if not uid_text(raw.values, _SOP_UID) or not uid_text(raw.values, _CODES["SOPClassUID"]):
        return FileReason.MISSING_SOP_UID
    return None


def _pixel_fault(raw: RawHeader, size: int) -> FileReason | None:
    """Find a CT image that holds fewer pixel bytes than its header declares: `TRUNCATED`."""
    values = raw.values
    if uid_text(values, _CODES["SOPClassUID"]) not in CT_IMAGE_CLASSES:
        return None
    if raw.pixel_offset is None:
        return None if raw.read_by_pydicom else FileReason.TRUNCATED
    if raw.transfer_syntax not in UNCOMPRESSED or raw.pixel_length is None:
        return None
    shape = [
        unsigned_integer(values.get(tag, b""), raw.little_endian)
        for tag in (0x00280010, 0x00280011, 0x00280100)
    ]
    frames = integer_string(values.get(_INTEGER_STRINGS["NumberOfFrames"], b"")) or 1
    samples = unsigned_integer(values.get(_SAMPLES, b""), raw.little_endian) or 1
    rows, columns, bits = (value or 0 for value in shape)
    expected = (rows * columns * bits * samples * frames + 7) // 8
    held = min(raw.pixel_length, size - raw.pixel_offset)
    return FileReason.TRUNCATED if held < max(raw.pixel_length, expected) else None


def _row(raw: RawHeader, keyring: Keyring, texts: TextPolicy) -> dict[str, object]:
    values, nested = raw.values, raw.nested
    charset = values.get(_CHARSET, b"")
    patient = decode_text(values.get(_PATIENT_ID, b""), charset)
    accession = decode_text(values.get(_ACCESSION, b""), charset)
    study, series = uid_text(values, _STUDY_UID), uid_text(values, _SERIES_UID)
    instance, frame = uid_text(values, _SOP_UID), uid_text(values, _FRAME_UID)
    row: dict[str, object] = {
        "study_key": _study_key(keyring, study) if study else None,
        "patient_key": _patient_key(keyring, patient) if patient else None,
        "accession_key": _accession_key(keyring, accession) if accession else None,
        "SeriesInstanceUID": _pseudonym(keyring, series) if series else None,
        "SOPInstanceUID": keyring.pseudonym_uid(instance) if instance else None,
        "FrameOfReferenceUID": _pseudonym(keyring, frame) if frame else None,
        "SOPClassUID": standard_uid(values.get(_CODES["SOPClassUID"], b"")),
        "TransferSyntaxUID": standard_uid(raw.transfer_syntax.encode("latin-1", "replace")),
        "Modality": defined_modality(values.get(_CODES["Modality"], b"")),
        "LossyImageCompression": lossy_code(values.get(_CODES["LossyImageCompression"], b"")),
        "acquisition_time_s": _acquisition_time(values),
        "has_contrast_agent": _has_contrast(raw, charset),
        "has_gating": _has_gating(raw),
        "PatientSex": _sex(values.get(_SEX, b"")),
        "patient_birth_year": _birth_year(values.get(_BIRTH_DATE, b"")),
        "pixel_data_offset": None if raw.transfer_syntax == DEFLATED else raw.pixel_offset,
    }
    row.update(_texts(raw, charset, texts))
    row["study_date"], row["study_date_source"] = _study_date(values)
    for name, tag in _INTEGER_STRINGS.items():
        row[name] = integer_string(values.get(tag, b""))
    for name, tag in _SHORTS.items():
        row[name] = unsigned_integer(values.get(tag, b""), raw.little_endian)
    for name, tag in _DECIMALS.items():
        row[name] = decimal_string(values.get(tag) or nested.get(tag, b""))
    if nested:
        for name, tag in _DOUBLES.items():
            if row[name] is None:
                row[name] = binary_double(nested.get(tag, b""), raw.little_endian)
    row.update(geometry_columns(raw))
    return row


def _sex(content: bytes) -> str | None:
    """PatientSex where it is a defined term (PS3.3 C.2.3); any other text may say more."""
    code = content.decode("latin-1").strip(" \0").upper()
    return code if code in ("F", "M", "O") else None


def _birth_year(content: bytes) -> int | None:
    born = calendar_date(content)
    return None if born is None else born.year


def _texts(raw: RawHeader, charset: bytes, policy: TextPolicy) -> dict[str, object]:
    """Scrub the texts of the patient and reduce them to words that name nobody."""
    values, identity = raw.values, _identity(raw, charset)
    row: dict[str, object] = {}
    terms = listed_terms()
    for name, tag in _FREE_TEXTS.items():
        content = values.get(tag, b"")
        text = mask_anywhere(content, charset, identity)
        if text and MASK in text:
            written = described_text(content, charset) or ""
            if not same_answers(text, written, policy):
                # A name that is a term, or lies in one, must not decide which series is chosen.
                text = mask_anywhere(content, charset, identity, terms)
        row[name] = text and reduce_description(text, policy)
    for name, tag in _DEVICE_TEXTS.items():
        content = values.get(tag) or raw.nested.get(tag, b"")
        text = mask_whole_words(content, charset, identity, terms)
        row[name] = text and reduce_device_text(text, policy)
    kind = mask_whole_words(values.get(_IMAGE_TYPE, b""), charset, identity, terms)
    row["ImageType"] = kind and reduce_image_type(kind, policy)
    return row


def _study_date(values: dict[int, bytes]) -> tuple[date | None, str | None]:
    """StudyDate, or the first attribute that can stand in for it, and which it was."""
    content = values.get(_STUDY_DATE, b"")
    day = calendar_date(content)
    if day is not None:
        return day, "StudyDate"
    day = repaired_date(content)
    if day is not None:
        return day, "repaired"
    for name, tag in _OTHER_DATES.items():
        content = values.get(tag, b"")
        day = calendar_date(content) or repaired_date(content)
        if day is not None:
            return day, name
    return None, None


def _acquisition_time(values: dict[int, bytes]) -> float | None:
    for tag in _TIMES:
        seconds = seconds_of_day(values.get(tag, b""))
        if seconds is not None:
            return seconds
    return None


def _identity(raw: RawHeader, charset: bytes) -> Identity:
    get = raw.values.get
    names = tuple(get(tag, b"") for tag in _NAMES)
    numbers = (get(_PATIENT_ID, b""), get(_ACCESSION, b""), get(_OTHER_IDS, b""))
    return Identity(names, numbers, get(_BIRTH_DATE, b""), charset)


_NO_AGENT = frozenset(("", "none", "no", "n", "0", "without", "ohne", "sans", "non", "nein"))


def _has_contrast(raw: RawHeader, charset: bytes) -> bool:
    agent = raw.values.get(_AGENT) or raw.nested.get(_AGENT, b"")
    text = decode_text(agent, charset) if agent else ""
    named = text.strip(" .-_/").casefold() not in _NO_AGENT
    return named or bool(raw.values.get(_AGENT_SEQUENCE))


def _has_gating(raw: RawHeader) -> bool:
    for tag in _GATING:
        content = raw.values.get(tag, b"").strip(b" \0")
        if content and decimal_string(content) != 0.0:
            return True
    technique = raw.values.get(_SYNCHRONISATION, b"").strip(b" \0")
    return technique not in (b"", b"NONE") or bool(raw.nested.get(_CARDIAC_PHASE))


@lru_cache(maxsize=64)
def _study_key(keyring: Keyring, uid: str) -> str:
    return keyring.study_key(uid)


@lru_cache(maxsize=64)
def _patient_key(keyring: Keyring, patient_id: str) -> str:
    return keyring.patient_key(patient_id)


@lru_cache(maxsize=64)
def _accession_key(keyring: Keyring, accession_number: str) -> str:
    return keyring.accession_key(accession_number)


@lru_cache(maxsize=256)
def _pseudonym(keyring: Keyring, uid: str) -> str:
    return keyring.pseudonym_uid(uid)
