"""De-identified copies of images: DICOM PS3.15 basic profile, as a list of what stays.

Options: clean descriptors (113105), retain longitudinal information with modified dates (113107),
and retain safe private (113111) where a site lists elements. UIDs, dates and the PatientID follow
from the secret, so that copies of different nights agree. Pixels are written anew, uncompressed:
code streams and unused bits can hold texts.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian

from cac_core.dicom import datafile
from cac_core.dicom.kept_elements import (
    CODES,
    DATES,
    EMPTY,
    NUMBERS,
    SEQUENCES,
    STANDARD_UIDS,
    TAGS,
    TEXTS,
    TIMES,
    UIDS,
)
from cac_core.dicom.limits import ReadLimits
from cac_core.dicom.pixels import FrameReader, pixel_layout
from cac_core.errors import StudyError
from cac_core.keys import Keyring
from cac_core.version import __version__

#: CT, Enhanced CT, Legacy Converted Enhanced CT, NM, PET: pictures of the body, not of a screen.
IMAGE_CLASSES = frozenset(
    (
        "1.2.840.10008.5.1.4.1.1.2",
        "1.2.840.10008.5.1.4.1.1.2.1",
        "1.2.840.10008.5.1.4.1.1.2.2",
        "1.2.840.10008.5.1.4.1.1.20",
        "1.2.840.10008.5.1.4.1.1.128",
    )
)
_SCREENS = ("SCREEN SAVE", "SCREENSAVE", "SECONDARY", "LOCALIZER_TEXT")
_STANDARD_ROOT = "1.2.840.10008."
_TIME = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9](\.[0-9]{1,6})?)?)?")
_METHOD_CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113105", "Clean Descriptors Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
)
_SAFE_PRIVATE = ("113111", "Retain Safe Private Option")
#: Deepest nesting and most items that are followed.
_DEPTH, _ITEMS = 8, 20_000


class NotCopiedError(Exception):
    """An image that is not copied; the message is the reason, without values of the header."""


@dataclass(frozen=True)
class CopyRules:
    """What a copy depends on beside the file.

    Parameters
    ----------
    keyring : derives UIDs.
    allowed : further elements that are kept, tags as 32-bit numbers.
    """

    keyring: Keyring
    allowed: frozenset[int] = field(default_factory=frozenset)


def deidentified(
    content: bytes, row: Mapping[str, Any], shift: dt.timedelta, rules: CopyRules
) -> Dataset:
    """The de-identified copy of an image.

    Parameters
    ----------
    content : bytes of the file.
    row : its row of `instances`, with the keys and the texts that may be kept.
    shift : offset of the dates of its patient.
    rules : secret and allow-list.

    Raises
    ------
    NotCopiedError
        If the file is no image of a kind that is copied, or says that text is burned in.
    """
    try:
        with datafile.quiet_pydicom():
            source = dcmread(BytesIO(content), force=True)
            _require_image(source)
            copy = _items_kept(source, shift, rules, depth=0)
            _add_texts(copy, source, row)
            _add_pixels(copy, datafile.parse_dataset(content, _budget()))
            _add_patient(copy, row)
            _stamp(copy, source, rules)
    except StudyError as error:
        raise NotCopiedError(f"the pixels cannot be read: {error.reason.value}") from None
    except datafile.PARSE_ERRORS as error:
        raise NotCopiedError(f"the file cannot be read ({type(error).__name__})") from None
    return copy


def _budget() -> datafile.InflationBudget:
    return datafile.InflationBudget(ReadLimits().max_inflated_bytes)


def _require_image(source: Dataset) -> None:
    if datafile.text(source, "SOPClassUID") not in IMAGE_CLASSES:
        raise NotCopiedError("not an image of CT, NM or PET")
    for name in ("BurnedInAnnotation", "RecognizableVisualFeatures"):
        if (datafile.text(source, name) or "").upper() == "YES":
            raise NotCopiedError(f"{name} is YES")
    kind = (datafile.text(source, "ImageType") or "").upper()
    if any(word in kind for word in _SCREENS):
        raise NotCopiedError("a capture of a screen, in which text can be burned in")


def _items_kept(source: Dataset, shift: dt.timedelta, rules: CopyRules, depth: int) -> Dataset:
    """The kept elements of a data set or item, with their new values."""
    copy = Dataset()
    for tag in list(source.keys()):
        if int(tag) in rules.allowed:
            copy[tag] = source[tag]
            continue
        keyword = _keyword(tag)
        if keyword in SEQUENCES and depth < _DEPTH:
            items = datafile.items(source, keyword)[:_ITEMS]
            setattr(copy, keyword, [_items_kept(i, shift, rules, depth + 1) for i in items])
            continue
        value = _new_value(source, keyword, shift, rules.keyring)
        if value is not None:
            setattr(copy, keyword, value)
    return copy


def _keyword(tag: Any) -> str:
    from pydicom.datadict import keyword_for_tag

    return "" if Tag(tag).is_private else keyword_for_tag(tag)


def _new_value(source: Dataset, keyword: str, shift: dt.timedelta, keyring: Keyring) -> Any:
    """The value that a copy has for an element; None if it is dropped."""
    if keyword in NUMBERS:
        return _number(source, keyword)
    text = datafile.text(source, keyword) if keyword else None
    if text is None:
        return None
    if keyword in UIDS:
        return keyring.pseudonym_uid(text)
    if keyword in DATES:
        return _shifted(text, shift)
    if keyword in TIMES:
        return text if _TIME.fullmatch(text) else None
    if keyword in STANDARD_UIDS:
        return text if text.startswith(_STANDARD_ROOT) else None
    if keyword in TAGS:
        return _standard_tags(source[keyword].value)
    if keyword in CODES:
        values = text.upper().split("\\")
        return values if set(values) <= CODES[keyword] else None
    return None


def _standard_tags(value: Any) -> Any:
    """Tags if the standard has all of them: others could be four letters of a name."""
    values = value if isinstance(value, Sequence) else [value]
    return value if all(_keyword(tag) for tag in values) else None


def _number(source: Dataset, keyword: str) -> Any:
    numbers = datafile.numbers(source, keyword)
    if numbers is None or not np.isfinite(numbers).all():
        return None
    vr = str(source[keyword].VR)
    if vr == "DS":
        return [_decimal(number) for number in numbers]
    if vr in ("FL", "FD"):
        return numbers
    if any(number != int(number) for number in numbers):
        return None
    return [int(number) for number in numbers]


def _decimal(number: float) -> str:
    """A decimal string of at most 16 characters (PS3.5 6.2)."""
    for digits in range(17, 0, -1):
        text = f"{number:.{digits}g}"
        if len(text) <= 16:
            return text
    return "0"


def _shifted(text: str, shift: dt.timedelta) -> str | None:
    """A date or moment moved by whole days; None where it is neither."""
    try:
        day = dt.datetime.strptime(text[:8], "%Y%m%d").date() + shift
    except (ValueError, OverflowError):
        return None
    rest = text[8:]
    if rest and not _TIME.fullmatch(rest):
        rest = ""  # an offset from UTC tells where the scanner stands
    return f"{day:%Y%m%d}{rest}"


def _add_texts(copy: Dataset, source: Dataset, row: Mapping[str, Any]) -> None:
    for keyword in TEXTS:
        text = row.get(keyword)
        if text is not None and keyword in source:
            setattr(copy, keyword, str(text)[:64] if keyword != "ImageType" else text.split("\\"))


def _add_pixels(copy: Dataset, parsed: Dataset) -> None:
    layout = pixel_layout(parsed, ReadLimits())
    if layout.overlay_in_pixels and layout.signed:
        raise NotCopiedError("an overlay in the bits of signed pixels")
    reader = FrameReader(parsed, layout)
    kind = f"{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}"
    frames = (reader.stored(n).astype(f"<{kind}") for n in range(layout.n_frames))
    data = b"".join(frame.tobytes() for frame in frames)
    copy.PixelData = data + b"\0" * (len(data) % 2)
    copy["PixelData"].VR = "OW" if layout.bits_allocated > 8 else "OB"
    copy.SamplesPerPixel, copy.PhotometricInterpretation = 1, "MONOCHROME2"
    copy.PixelRepresentation = int(layout.signed)


def _add_patient(copy: Dataset, row: Mapping[str, Any]) -> None:
    for keyword in EMPTY:
        setattr(copy, keyword, "")
    for keyword in ("PositionReferenceIndicator", "Laterality", "StudyDate", "StudyTime"):
        if keyword not in copy:
            setattr(copy, keyword, "")
    key = row["patient_key"] or row["study_key"]
    copy.PatientID, copy.PatientName = key, key
    if not {"SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"} <= set(copy.dir()):
        raise NotCopiedError("a UID is missing")


def _stamp(copy: Dataset, source: Dataset, rules: CopyRules) -> None:
    """Say that and how the copy was de-identified, and make a meta header and preamble anew."""
    used = [*_METHOD_CODES, *([_SAFE_PRIVATE] if rules.allowed else [])]
    copy.PatientIdentityRemoved = "YES"
    copy.LongitudinalTemporalInformationModified = "MODIFIED"
    copy.DeidentificationMethod = [f"cac-cohort {__version__}", "PS3.15 Basic Profile"]
    codes = []
    for value, meaning in used:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator = value, "DCM"
        item.CodeMeaning = meaning[:64]
        codes.append(item)
    copy.DeidentificationMethodCodeSequence = codes
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = copy.SOPClassUID
    meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID("2.25.267318441709219405372215341937461180")
    copy.file_meta, copy.preamble = meta, b"\0" * 128
    copy.SpecificCharacterSet = "ISO_IR 192"
