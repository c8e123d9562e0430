"""The tags of the header reader against the dictionary of pydicom."""

from __future__ import annotations

from pydicom.datadict import tag_for_keyword

from cac_core.dicom import tags


def test_every_tag_has_its_number() -> None:
    keywords = [name for name in vars(tags) if name[0].isupper()]
    assert len(keywords) > 60
    assert tags.by_keyword(*keywords) == {name: tag_for_keyword(name) for name in keywords}
