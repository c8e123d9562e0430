"""Identifiers of the patient are masked in texts in every usual spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cac_core.dicom.deidentify import Identity, mask_anywhere, mask_whole_words

UTF8 = b"ISO_IR 192"


def scrub(text: str, name: str = "", number: str = "", born: str = "") -> str | None:
    identity = Identity((name.encode(),), (number.encode(),), born.encode(), UTF8)
    return mask_anywhere(text.encode(), UTF8, identity)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Müller^Jörg", "CT Mueller Rest"),
        ("Müller^Jörg", "CT MULLER Rest"),
        ("Mueller^Joerg", "CT Müller Rest"),
        ("Müller^Jörg", "CT Mu\u0308ller Rest"),
        ("Mu\u0308ller", "CT MÜLLER Rest"),
        ("Groß", "CT GROSS Rest"),
        ("Gross", "CT groß Rest"),
        ("René", "CT RENE Rest"),
        ("Rene", "CT rené Rest"),
        ("Søren", "CT Soeren Rest"),
        ("Søren", "CT Soren Rest"),
        ("Soeren", "CT Søren Rest"),
        ("Åse^Kåre", "CT Kaare Rest"),
        ("Kaare", "CT Kåre Rest"),
        ("Łukasz", "CT Lukasz Rest"),
        ("Ægir", "CT Aegir Rest"),
        ("Li^Bo", "CT Li Rest"),
        ("Li^Bo", "CT LI Rest"),
        ("Ng", "CT ng Rest"),
        ("山田^太郎", "CT 山田太郎 Rest"),
        ("王^小東", "CT 王小東 Rest"),
        ("O'Brien", "CT OBrien Rest"),
        ("van der Berg^A", "CT Berg Rest"),
    ],
)
def test_names(name: str, text: str) -> None:
    scrubbed = scrub(text, name=name)
    assert scrubbed is not None
    assert scrubbed.startswith("CT ") and scrubbed.endswith(" Rest")
    middle = scrubbed[3:-5]
    assert "***" in middle and not middle.replace("***", "").replace("O", "").strip()


@pytest.mark.parametrize("text", ["CT slice Rest", "Hawkeye libido", "BOLUS"])
def test_names_of_two_letters_match_whole_words_only(text: str) -> None:
    assert scrub(text, name="Li^Bo") == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0012345", "12345"),
        ("0012345", "0012345"),
        ("00-123-45", "12345"),
        ("00-123-45", "0012345"),
        ("12345", "0012345"),
        ("12345", "12-345"),
        ("MRN 0012345", "MRN12345"),
        ("MRN 0012345", "mrn-0012345"),
        ("A-12", "A12"),
        ("007", "007"),
        ("123456/7890", "123456-7890"),
        ("123456/7890", "1234567890"),
    ],
)
def test_record_numbers(number: str, text: str) -> None:
    scrubbed = scrub(f"CT {text} Rest", number=number)
    assert scrubbed is not None
    left = scrubbed.removeprefix("CT ").removesuffix(" Rest")
    assert not any(character.isdigit() for character in left)


@pytest.mark.parametrize(
    "text",
    [
        "19470311", "1947-03-11", "11.03.1947", "11.3.1947", "11.3.47", "11/3/47", "3/11/1947",
        "03/11/47", "11031947", "110347", "470311", "11 Mar 1947", "11. März 1947", "11-MAR-47",
        "March 11, 1947", "11mar1947", "1947 Mar 11", "11 mars 1947", "11. 3. 1947",
    ],
)  # fmt: skip
def test_birth_dates(text: str) -> None:
    assert scrub(f"CT {text} Rest", born="19470311") == "CT *** Rest"


@pytest.mark.parametrize("text", ["12.3.1947", "11.3.1948", "CT 3.0 B30s 120 kV", "11 mm 47"])
def test_other_numbers_are_kept(text: str) -> None:
    assert scrub(text, born="19470311") == text


def test_device_texts_are_masked_by_whole_words() -> None:
    identity = Identity((b"Philip^Joe",), (b"12",), b"", UTF8)
    assert mask_whole_words(b"Philips Joe 12", UTF8, identity) == "Philips *** ***"


@given(st.text(max_size=40), st.text(max_size=12), st.text(max_size=12))
def test_no_text_raises_and_other_words_are_kept(text: str, name: str, number: str) -> None:
    scrubbed = scrub(text.encode("utf-8", "replace").decode(), name=name, number=number) or ""
    for part in scrubbed.split("***"):
        assert part.strip() == "" or part.strip() in "".join(
            character if character.isprintable() else " " for character in text
        )
