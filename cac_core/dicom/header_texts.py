"""Columns of `instances` with text of the header, de-identified and reduced to allowed words."""

from __future__ import annotations

import re

from cac_core.dicom import tags
from cac_core.dicom.deidentify import (
    MASK,
    Identity,
    described_text,
    mask_anywhere,
    mask_whole_words,
)
from cac_core.dicom.descriptions import (
    TextPolicy,
    allowed_terms,
    reduce_description,
    reduce_device_text,
    reduce_image_type,
    same_matches,
)
from cac_core.dicom.part10 import RawHeader

_FREE_TEXTS = tags.by_keyword("SeriesDescription", "StudyDescription", "ProtocolName")
_DEVICE_TEXTS = tags.by_keyword("Manufacturer", "ManufacturerModelName", "ConvolutionKernel")
_NAMES = tags.by_keyword(
    "PatientName",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "ResponsiblePerson",
)
#: Never part of a text (PS3.5 6.1.3 admits ESC, TAB, LF, FF and CR), and in nearly every element
#: header: a value with one of them inside has swallowed the next elements, which can be the name.
_FOREIGN = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_NUMBERS = tags.by_keyword("PatientID", "AccessionNumber", "OtherPatientIDs")

#: Elements that the columns are made from, those that identify the patient included.
TEXT_TAGS = frozenset(
    (
        *(tags.SpecificCharacterSet, tags.PatientBirthDate, tags.ImageType),
        *(*_NAMES.values(), *_NUMBERS.values()),
        *(*_FREE_TEXTS.values(), *_DEVICE_TEXTS.values()),
    )
)


def text_columns(raw: RawHeader, charset: bytes, policy: TextPolicy) -> dict[str, object]:
    """Descriptions, device and ImageType, without the patient and without unlisted words.

    Parameters
    ----------
    raw : values of the header.
    charset : SpecificCharacterSet.
    policy : which words are kept.
    """
    values, identity = raw.values, _identity(raw, charset)
    row: dict[str, object] = {}
    terms = allowed_terms()
    for name, tag in _FREE_TEXTS.items():
        content = _whole(values.get(tag, b""))
        text = mask_anywhere(content, charset, identity)
        if text and MASK in text:
            written = described_text(content, charset) or ""
            if not same_matches(text, written, policy):
                # The name of a patient contains a term, or equals one: it must not decide which
                # series is chosen.
                text = mask_anywhere(content, charset, identity, terms)
        row[name] = text and reduce_description(text, policy)
    for name, tag in _DEVICE_TEXTS.items():
        content = _whole(values.get(tag) or raw.nested.get(tag, b""))
        text = mask_whole_words(content, charset, identity, terms)
        row[name] = text and reduce_device_text(text, policy)
    content = _whole(values.get(tags.ImageType, b""))
    image_type = mask_whole_words(content, charset, identity, terms)
    row["ImageType"] = image_type and reduce_image_type(image_type, policy)
    return row


def _whole(content: bytes) -> bytes:
    """A text, or nothing where it holds bytes of other elements."""
    return b"" if _FOREIGN.search(content.strip(b" \0")) else content


def _identity(raw: RawHeader, charset: bytes) -> Identity:
    get = raw.values.get
    return Identity(
        names=tuple(get(tag, b"") for tag in _NAMES.values()),
        numbers=tuple(get(tag, b"") for tag in _NUMBERS.values()),
        birth_date=get(tags.PatientBirthDate, b""),
        charset=charset,
    )
