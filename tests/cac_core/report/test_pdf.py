"""The page as PDF."""

from __future__ import annotations

import pytest

from cac_core.report.pdf import to_pdf


def test_links_to_other_files_are_left_out_without_a_warning(
    capfd: pytest.CaptureFixture[str],
) -> None:
    linked = '<p id="top"><a href="studies/a.html">a</a> <a href="#top">up</a></p>'
    plain = '<p id="top"><a>a</a> <a href="#top">up</a></p>'
    assert to_pdf(linked, "title") == to_pdf(plain, "title")
    assert capfd.readouterr().err == ""
