"""Links from the page to the files of its figures and tables."""

from __future__ import annotations

from collections.abc import Callable, Collection

from cac_core.report.page import Links

#: Kinds of files by name, in the order in which they are listed.
_KINDS = (
    ("figures/{}.svg", "SVG"),
    ("figures/{}.png", "PNG"),
    ("figures/journal/{}-1col.pdf", "PDF, one column"),
    ("figures/journal/{}-1col.tiff", "TIFF, one column"),
    ("figures/journal/{}-2col.pdf", "PDF, two columns"),
    ("figures/journal/{}-2col.tiff", "TIFF, two columns"),
    ("tables/{}.csv", "CSV"),
    ("tables/{}.parquet", "Parquet"),
    ("tables/{}.docx", "Word"),
    ("tables/{}.tex", "LaTeX"),
)


def file_links(names: Collection[str]) -> Callable[[str], Links]:
    """Function from the identifier of a figure or table to links to its files.

    Parameters
    ----------
    names : files beside the page, relative to it.
    """
    there = frozenset(names)

    def links(identifier: str) -> Links:
        known = ((kind, name.format(identifier)) for name, kind in _KINDS)
        return tuple((kind, name) for kind, name in known if name in there)

    return links
