"""The page of a study: all its rows, what is missing said, nothing loaded, the same bytes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cac_core.errors import CacError
from cac_core.report.study_page import StudyRecord, study_page, write_study_pages
from schemas.lesion import LESIONS
from schemas.preview import PREVIEWS
from schemas.score import CATEGORY_CHANCES, SCORES
from tests.builders.rows import key, lesion_row, preview_row, score_row
from tests.cac_core.report.test_page import Tags


def record(**changes: object) -> StudyRecord:
    score = {
        "quality_flags": "heart_truncated;high_noise",
        "Manufacturer": "ACME <Imaging>",
        "KVP": 120.0,
        "seconds_preview": 0.021,
    }
    return StudyRecord(
        "convlstm-test",
        SCORES.from_rows([score_row(1, **(score | changes))]).to_pylist()[0],
        LESIONS.from_rows(
            [lesion_row(1), lesion_row(1, slice_index=9, calcium_class="noncoronary")]
        ).to_pylist(),
        PREVIEWS.from_rows([preview_row(1), preview_row(1, slice_index=7)]).to_pylist(),
        {"expert_agatston": 44.0, "expert_cac_category": "1-100", "visual_grade": "present"},
        {"torch": "2.13.0"},
    )


def test_everything_of_a_scored_study_is_there() -> None:
    text = study_page(record())
    assert not Tags(text).open
    for part in (
        key(1),
        "12.5",  # the score
        "44.0",  # the expert's
        "present",
        "the heart touches a border of the volume",
        "ACME &lt;Imaging&gt;",
        "120 kV",
        "Slice 5 at -812.5 mm, Agatston 19.0 in this slice",
        'href="#slice-5"',
        'id="slice-7"',
        "0.021",
        "2.13.0",
    ):
        assert part in text, part
    assert 'href="#slice-9"' not in text, "no picture of that slice"
    assert text == study_page(record())


def test_how_sure_a_score_is() -> None:
    chances = dict(zip(CATEGORY_CHANCES, (0.1, 0.65, 0.25, 0.0), strict=True))
    sure = {"agatston_low": 2.4, "agatston_high": 181.7, "needs_review": True}
    text = study_page(record(**chances, **sure, review_reasons="borderline_category;device"))
    for part in ("65 %", "2 to 182", "no category is likely enough", "metal in the heart or near"):
        assert part in text, part
    assert not Tags(text).open
    earlier = study_page(record())
    assert "not known" in earlier
    assert "Chance of each category" not in earlier


def test_identifiers_are_unique_and_links_lead_somewhere() -> None:
    tags = Tags(study_page(record())).found
    identifiers = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in tags:
        href = attributes.get("href") or "data:"
        assert href.startswith("data:") or href.removeprefix("#") in identifiers, href
        for name in ("aria-labelledby",):
            if attributes.get(name):
                assert attributes[name] in identifiers


def test_a_study_without_a_score_says_why() -> None:
    unscored = dict.fromkeys(
        ("agatston", "agatston_noncoronary", "cac_category", "n_lesions", "noise_hu"), None
    )
    why = {"status": "rejected", "reason": "no_heart", "detail": "heart mask of 12 ml"}
    text = study_page(dataclasses.replace(record(**unscored, **why), lesions=(), previews=()))
    assert "the heart network found no plausible heart" in text
    assert "heart mask of 12 ml" in text
    assert "Key slices" not in text
    assert not Tags(text).open


def test_what_is_missing_is_said() -> None:
    bare = dataclasses.replace(record(quality_flags=""), lesions=(), previews=(), linked=None)
    text = study_page(bare)
    for part in ("No pictures were kept", "No calcium was found", "No flag", "No expert reading"):
        assert part in text


def test_pages_are_files_under_their_key(tmp_path: Path) -> None:
    written = write_study_pages([record()], tmp_path / "studies")
    assert "Next study" not in next(iter(written.values())).read_text()
    assert written == {key(1): tmp_path / "studies" / f"{key(1)}.html"}
    assert written[key(1)].read_text() == study_page(record())
    (tmp_path / "file").touch()
    with pytest.raises(CacError, match="cannot be written"):
        write_study_pages([record()], tmp_path / "file")


def test_pages_lead_to_the_one_before_and_after_and_to_the_report(tmp_path: Path) -> None:
    first = record()
    records = [
        dataclasses.replace(first, score={**first.score, "study_key": name * 32}) for name in "abc"
    ]
    written = write_study_pages(records, tmp_path, "../index.html")
    links = [
        [attributes["href"] for tag, attributes in Tags(path.read_text()).found
         if tag == "a" and str(attributes.get("href")).endswith(".html")]
        for path in written.values()
    ]  # fmt: skip
    a, b, c = (f"{name * 32}.html" for name in "abc")
    assert links == [["../index.html", b], ["../index.html", a, c], ["../index.html", b]]
