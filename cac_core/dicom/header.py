"""Reads the header of one file into one row of `instances`; never raises, never reads pixels.

Identifiers become keys and free texts are de-identified here, before anything leaves this module.
Worker processes start by the dozen and must start fast, so this module imports neither pyarrow nor
numpy, and pydicom only for malformed files.
"""

from __future__ import annotations

import os
import stat
from datetime import date
from functools import lru_cache, partial

from cac_core.dicom import tags
from cac_core.dicom.byte_window import (
    LimitExceededError,
    MalformedHeaderError,
    NotDicomError,
    ReadAt,
    TruncatedHeaderError,
    Window,
)
from cac_core.dicom.deidentify import (
    decode_text,
)
from cac_core.dicom.descriptions import TextPolicy, defined_modality
from cac_core.dicom.header_geometry import COSINE_COLUMNS, POSITION_COLUMNS, geometry_columns
from cac_core.dicom.header_texts import TEXT_TAGS, text_columns
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
from cac_core.dicom.limits import HeaderLimits
from cac_core.dicom.part10 import DEFLATED, UNCOMPRESSED, RawHeader, walk_header
from cac_core.dicom.uid_recovery import recover_identity
from cac_core.keys import Keyring
from cac_core.storage import RemoteFile
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

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_OTHER_DATES = tags.by_keyword("SeriesDate", "AcquisitionDate", "ContentDate")
_TIMES = (tags.AcquisitionTime, tags.SeriesTime)
_INTEGER_STRINGS = tags.by_keyword(
    "SeriesNumber", "AcquisitionNumber", "InstanceNumber", "NumberOfFrames"
)
_UNSIGNED = tags.by_keyword("Rows", "Columns", "BitsAllocated")
_DECIMALS = tags.by_keyword(
    "SliceThickness",
    "KVP",
    "XRayTubeCurrent",
    "Exposure",
    "ReconstructionDiameter",
    "GantryDetectorTilt",
)
#: The same quantities as binary doubles in the functional groups of Enhanced CT.
_DOUBLES = {
    "XRayTubeCurrent": tags.XRayTubeCurrentInmA,
    "Exposure": tags.ExposureInmAs,
    "ReconstructionDiameter": tags.ReconstructionFieldOfView,
}
#: Set where the scan was gated; NominalInterval is that of the heart beats.
_GATING = (tags.TriggerTime, tags.NominalInterval)
_GEOMETRY = (tags.ImagePositionPatient, tags.ImageOrientationPatient, tags.PixelSpacing)

WANTED = TEXT_TAGS | frozenset(
    (
        *tags.by_keyword(*_UIDS, "FrameOfReferenceUID", "SOPClassUID", "Modality").values(),
        *tags.by_keyword("StudyDate", "PatientSex", "LossyImageCompression").values(),
        *tags.by_keyword("ContrastBolusAgent", "ContrastBolusAgentSequence").values(),
        *tags.by_keyword("SamplesPerPixel", "CardiacSynchronizationTechnique").values(),
        *(*_GEOMETRY, *_GATING, *_TIMES, *_OTHER_DATES.values()),
        *(*_INTEGER_STRINGS.values(), *_UNSIGNED.values(), *_DECIMALS.values()),
    )
)
NESTED = frozenset(
    (
        *(*_GEOMETRY, tags.ConvolutionKernel, tags.ContrastBolusAgent),
        *(tags.NominalPercentageOfCardiacPhase, *_DECIMALS.values(), *_DOUBLES.values()),
    )
)

#: Values of `read_header` in order: the columns of `instances` that come from the header.
HEADER_COLUMNS: tuple[str, ...] = (
    *("reason", "study_key", "patient_key", "accession_key"),
    *("SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"),
    *("SOPClassUID", "TransferSyntaxUID", "Modality", "study_date"),
    *("study_date_source", "acquisition_time_s"),
    *("ImageType", "SeriesDescription", "StudyDescription", "ProtocolName", "Manufacturer"),
    *("ManufacturerModelName", "ConvolutionKernel", "LossyImageCompression", "SeriesNumber"),
    *("AcquisitionNumber", "InstanceNumber", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "row_spacing_mm", "column_spacing_mm", "SliceThickness"),
    *(*POSITION_COLUMNS, *COSINE_COLUMNS),
    *("frame_increment_mm", "frame_coverage_mm", "KVP", "XRayTubeCurrent", "Exposure"),
    *("ReconstructionDiameter", "GantryDetectorTilt", "has_contrast_agent", "has_gating"),
    *("PatientSex", "patient_birth_year"),
    "pixel_data_offset",
)
HeaderRow = tuple[object, ...]


def read_header(
    path: str | RemoteFile,
    keyring: Keyring,
    limits: HeaderLimits,
    texts: TextPolicy = TextPolicy(),  # noqa: B008 - immutable
    beginning: bytes | OSError | None = None,
) -> HeaderRow:
    """Read the header of one file; returns a row for any content.

    Parameters
    ----------
    path : file to read; links are followed. A file of a store has its size.
    keyring : derives the keys and pseudonyms.
    limits : limits on bytes, elements and depth.
    texts : which words of descriptions are kept; by default allowed terms only.
    beginning : first bytes of a file of a store, or why they could not be read.

    Returns
    -------
    Values of `HEADER_COLUMNS`. Where the file is not a usable instance, `reason` and the values
    read before the fault, or a tuple of one: `(reason,)`.
    """
    try:
        if isinstance(path, RemoteFile):
            return _read_remote(path, beginning, keyring, limits, texts)
        return _read(path, keyring, limits, texts)
    except (MemoryError, RecursionError):
        return (FileReason.HEADER_LIMITS.value,)
    except Exception:  # noqa: BLE001 - any fault of a file becomes its row
        return (FileReason.UNREADABLE_HEADER.value,)


def header_row(raw: RawHeader, keyring: Keyring, texts: TextPolicy) -> HeaderRow:
    """The row of an instance whose header was not read from a file, and whose pixels lie elsewhere.

    Parameters
    ----------
    raw : wanted elements of the header.
    keyring, texts : as for `read_header`.
    """
    try:
        reason = _missing_uid(raw)
        row = _row(raw, keyring, texts)
    except Exception:  # noqa: BLE001 - any fault of a header becomes its row
        return (FileReason.UNREADABLE_HEADER.value,)
    row["reason"] = None if reason is None else reason.value
    return tuple(map(row.get, HEADER_COLUMNS))


def _read(path: str, keyring: Keyring, limits: HeaderLimits, texts: TextPolicy) -> HeaderRow:
    try:
        # O_NONBLOCK: a pipe that has replaced the file must not block the reader.
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
        return _read_content(partial(os.pread, descriptor), status.st_size, keyring, limits, texts)
    except OSError:
        return (FileReason.NO_PERMISSION.value,)
    finally:
        os.close(descriptor)


def _read_remote(
    file: RemoteFile,
    beginning: bytes | OSError | None,
    keyring: Keyring,
    limits: HeaderLimits,
    texts: TextPolicy,
) -> HeaderRow:
    def read(count: int, position: int) -> bytes:
        if isinstance(beginning, bytes) and position + count <= len(beginning):
            return beginning[position : position + count]
        return file.read_range(count, position)

    try:
        if isinstance(beginning, OSError):
            raise beginning
        size = file.version()[0] if file.size is None else file.size
        if size == 0:
            return (FileReason.EMPTY_FILE.value,)
        return _read_content(read, size, keyring, limits, texts)
    except FileNotFoundError:
        return (FileReason.VANISHED.value,)
    except OSError:
        return (FileReason.NO_PERMISSION.value,)


def _read_content(
    read: ReadAt, size: int, keyring: Keyring, limits: HeaderLimits, texts: TextPolicy
) -> HeaderRow:
    raw, reason = _raw_header(read, Window(read, size, limits))
    if reason is FileReason.NOT_DICOM:
        return (reason.value,)
    if raw.media_class == _DICOMDIR_CLASS:
        return (FileReason.DICOMDIR.value,)
    if not raw.has_preamble and not _names_an_object(raw):
        return (FileReason.NOT_DICOM.value,)
    if reason is None:
        reason = _missing_uid(raw) or _pixel_fault(raw, size)
    row = _row(raw, keyring, texts)
    row["reason"] = None if reason is None else reason.value
    return tuple(map(row.get, HEADER_COLUMNS))


def _raw_header(read: ReadAt, window: Window) -> tuple[RawHeader, FileReason | None]:
    """Walk the header; return its values, and why the walk failed.

    A malformed header is read again by pydicom. Where the walk ends before StudyInstanceUID, the
    identifiers are searched as bytes.
    """
    raw = RawHeader()
    try:
        walk_header(window, raw, WANTED, NESTED)
        return raw, None
    except NotDicomError:
        return raw, FileReason.NOT_DICOM
    except TruncatedHeaderError:
        reason = FileReason.TRUNCATED
    except LimitExceededError:
        reason = FileReason.HEADER_LIMITS
    except MalformedHeaderError:
        reason = FileReason.UNREADABLE_HEADER
        if raw.transfer_syntax != DEFLATED:  # pydicom would inflate without a limit
            from cac_core.dicom.pydicom_fallback import read_with_pydicom

            fallback = read_with_pydicom(read, WANTED)
            if fallback is not None and _has_uids(fallback):
                return fallback, None
    if not uid_text(raw.values, tags.StudyInstanceUID):
        raw.values.update(recover_identity(window.remainder(), WANTED, raw.little_endian))
    return raw, reason


def _has_uids(raw: RawHeader) -> bool:
    return all(uid_text(raw.values, tag) for tag in tags.by_keyword(*_UIDS).values())


def _names_an_object(raw: RawHeader) -> bool:
    """Whether bytes without preamble are a data set, and not similar to one by chance."""
    kinds = (tags.SOPClassUID, tags.Modality, tags.StudyInstanceUID)
    return bool(raw.media_class) or any(raw.values.get(tag) for tag in kinds)


def _missing_uid(raw: RawHeader) -> FileReason | None:
    values = raw.values
    if not uid_text(values, tags.StudyInstanceUID):
        return FileReason.MISSING_STUDY_UID
    if not uid_text(values, tags.SeriesInstanceUID):
        return FileReason.MISSING_SERIES_UID
    if not uid_text(values, tags.SOPInstanceUID) or not uid_text(values, tags.SOPClassUID):
        return FileReason.MISSING_SOP_UID
    return None


def _pixel_fault(raw: RawHeader, size: int) -> FileReason | None:
    """Return `TRUNCATED` for a CT image with fewer pixel bytes than its header declares."""
    values = raw.values
    if uid_text(values, tags.SOPClassUID) not in CT_IMAGE_CLASSES:
        return None
    if raw.pixel_offset is None:
        return None if raw.read_by_pydicom else FileReason.TRUNCATED
    if raw.transfer_syntax not in UNCOMPRESSED or raw.pixel_length is None:
        return None
    shape = [
        unsigned_integer(values.get(tag, b""), raw.little_endian) for tag in _UNSIGNED.values()
    ]
    frames = integer_string(values.get(tags.NumberOfFrames, b"")) or 1
    samples = unsigned_integer(values.get(tags.SamplesPerPixel, b""), raw.little_endian) or 1
    rows, columns, bits = (value or 0 for value in shape)
    expected = (rows * columns * bits * samples * frames + 7) // 8
    held = min(raw.pixel_length, size - raw.pixel_offset)
    return FileReason.TRUNCATED if held < max(raw.pixel_length, expected) else None


def _row(raw: RawHeader, keyring: Keyring, texts: TextPolicy) -> dict[str, object]:
    values = raw.values
    charset = values.get(tags.SpecificCharacterSet, b"")
    row: dict[str, object] = {
        **_keys(values, charset, keyring),
        "SOPClassUID": standard_uid(values.get(tags.SOPClassUID, b"")),
        "TransferSyntaxUID": standard_uid(raw.transfer_syntax.encode("latin-1", "replace")),
        "Modality": defined_modality(values.get(tags.Modality, b"")),
        "LossyImageCompression": lossy_code(values.get(tags.LossyImageCompression, b"")),
        "acquisition_time_s": _acquisition_time(values),
        "has_contrast_agent": _has_contrast(raw, charset),
        "has_gating": _has_gating(raw),
        "PatientSex": _sex(values.get(tags.PatientSex, b"")),
        "patient_birth_year": _birth_year(values.get(tags.PatientBirthDate, b"")),
        "pixel_data_offset": None if raw.transfer_syntax == DEFLATED else raw.pixel_offset,
    }
    row["study_date"], row["study_date_source"] = _study_date(values)
    row.update(text_columns(raw, charset, texts))
    row.update(_numbers(raw))
    row.update(geometry_columns(raw))
    return row


def _keys(values: dict[int, bytes], charset: bytes, keyring: Keyring) -> dict[str, object]:
    """Keys of patient, accession number and study, and pseudonyms of the other UIDs."""
    patient = decode_text(values.get(tags.PatientID, b""), charset)
    accession = decode_text(values.get(tags.AccessionNumber, b""), charset)
    study = uid_text(values, tags.StudyInstanceUID)
    series = uid_text(values, tags.SeriesInstanceUID)
    instance = uid_text(values, tags.SOPInstanceUID)
    frame = uid_text(values, tags.FrameOfReferenceUID)
    return {
        "study_key": _study_key(keyring, study) if study else None,
        "patient_key": _patient_key(keyring, patient) if patient else None,
        "accession_key": _accession_key(keyring, accession) if accession else None,
        "SeriesInstanceUID": _pseudonym(keyring, series) if series else None,
        "SOPInstanceUID": keyring.pseudonym_uid(instance) if instance else None,
        "FrameOfReferenceUID": _pseudonym(keyring, frame) if frame else None,
    }


def _numbers(raw: RawHeader) -> dict[str, object]:
    """Integer and decimal columns; of multi-frame objects from the functional groups."""
    values, nested = raw.values, raw.nested
    row: dict[str, object] = {}
    for name, tag in _INTEGER_STRINGS.items():
        row[name] = integer_string(values.get(tag, b""))
    for name, tag in _UNSIGNED.items():
        row[name] = unsigned_integer(values.get(tag, b""), raw.little_endian)
    for name, tag in _DECIMALS.items():
        row[name] = decimal_string(values.get(tag) or nested.get(tag, b""))
    if nested:
        for name, tag in _DOUBLES.items():
            if row[name] is None:
                row[name] = binary_double(nested.get(tag, b""), raw.little_endian)
    return row


def _sex(content: bytes) -> str | None:
    """PatientSex where it is a defined term (PS3.3 C.2.3); other text may identify."""
    code = content.decode("latin-1").strip(" \0").upper()
    return code if code in ("F", "M", "O") else None


def _birth_year(content: bytes) -> int | None:
    born = calendar_date(content)
    return None if born is None else born.year


def _study_date(values: dict[int, bytes]) -> tuple[date | None, str | None]:
    """StudyDate, or the first attribute that can replace it, and the source of the date."""
    content = values.get(tags.StudyDate, b"")
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


_NO_AGENT = frozenset(("", "none", "no", "n", "0", "without", "ohne", "sans", "non", "nein"))


def _has_contrast(raw: RawHeader, charset: bytes) -> bool:
    agent = raw.values.get(tags.ContrastBolusAgent) or raw.nested.get(tags.ContrastBolusAgent, b"")
    text = decode_text(agent, charset) if agent else ""
    named = text.strip(" .-_/").casefold() not in _NO_AGENT
    return named or bool(raw.values.get(tags.ContrastBolusAgentSequence))


def _has_gating(raw: RawHeader) -> bool:
    for tag in _GATING:
        content = raw.values.get(tag, b"").strip(b" \0")
        if content and decimal_string(content) != 0.0:
            return True
    technique = raw.values.get(tags.CardiacSynchronizationTechnique, b"").strip(b" \0")
    return technique not in (b"", b"NONE") or bool(
        raw.nested.get(tags.NominalPercentageOfCardiacPhase)
    )


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
