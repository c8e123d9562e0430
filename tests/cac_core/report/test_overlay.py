"""Overlays cover the pixels they stand for, no more and no less."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cac_core.report.overlay import fill_path, key_slice, outline_path
from schemas.preview import LABEL_CORONARY, LABEL_HEART
from tests.builders.rows import label_png, preview_row

MASKS = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def covered(path: str, shape: tuple[int, ...]) -> Any:
    """The mask that a path of unit-high boxes covers, painted box by box."""
    painted = np.zeros(shape, int)
    pieces = re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", path)
    assert "".join(f"M{c} {r}h{n}v1h-{m}z" for c, r, n, m in pieces) == path
    for column, row, length, back in pieces:
        assert length == back
        painted[int(row), int(column) : int(column) + int(length)] += 1
    return painted


@given(MASKS)
def test_a_filled_path_covers_each_pixel_once(mask: Any) -> None:
    assert np.array_equal(covered(fill_path(mask), mask.shape), mask.astype(int))


@given(MASKS)
def test_an_outline_separates_unlike_neighbours(mask: Any) -> None:
    """Each edge between a pixel inside and one outside, and no other edge, is drawn once."""
    edges = []
    for column, row, way, length in re.findall(r"M(\d+) (\d+)([hv])(\d+)", outline_path(mask)):
        for step in range(int(length)):
            along = (int(row), int(column) + step) if way == "h" else (int(row) + step, int(column))
            edges.append((way, *along))
    expected = set()
    for row in range(-1, mask.shape[0] + 1):
        for column in range(-1, mask.shape[1] + 1):

            def inside(r: int, c: int) -> bool:
                return 0 <= r < mask.shape[0] and 0 <= c < mask.shape[1] and bool(mask[r, c])

            if inside(row, column) != inside(row - 1, column):
                expected.add(("h", row, column))
            if inside(row, column) != inside(row, column - 1):
                expected.add(("v", row, column))
    assert len(edges) == len(set(edges))
    assert set(edges) == expected


def test_a_key_slice_is_drawn_in_millimetres() -> None:
    labels = np.zeros((30, 60), np.uint8)
    labels[5:25, 10:50] = LABEL_HEART
    labels[8:10, 20:23] = LABEL_CORONARY
    row = preview_row(
        1, row_spacing_mm=2.0, column_spacing_mm=1.0, label_png=label_png(labels), slice_index=17
    )
    drawn = key_slice(row, "s", "A slice <17>")
    assert drawn.slice_index == 17
    for svg in (drawn.plain, drawn.marked):
        assert 'viewBox="0 0 60.00 60.00"' in svg
        assert "A slice &lt;17&gt;" in svg
    assert "M20 8h3v1h-3zM20 9h3v1h-3z" in drawn.marked
    assert 'href="#s-image"' in drawn.marked
    assert drawn.plain.count("data:image/png;base64,") == 1
    assert key_slice(row, "s", "A slice <17>") == drawn
