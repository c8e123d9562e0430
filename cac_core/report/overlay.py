"""Key slices as drawings: the heart in grey, its contour, and the class of each calcium pixel."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from schemas.preview import LABEL_CORONARY, LABEL_HEART, LABEL_NONCORONARY

#: Okabe and Ito's yellow, vermilion and sky blue: bright on grey, safe for colour blindness.
HEART_COLOUR, CORONARY_COLOUR, NONCORONARY_COLOUR = "#F0E442", "#D55E00", "#56B4E9"
_SCALE_BAR_MM = 20.0


@dataclass(frozen=True, slots=True)
class KeySlice:
    """One row of `previews`, drawn plain and with contour and calcium.

    `marked` refers to the picture of `plain`, so both must be in the same page.
    """

    slice_index: int
    description: str
    plain: Markup
    marked: Markup


def key_slice(preview: Mapping[str, Any], identifier: str, description: str) -> KeySlice:
    """Draw a row of the table `previews`.

    Parameters
    ----------
    identifier : unique within the page.
    description : text alternative.
    """
    with Image.open(io.BytesIO(preview["label_png"])) as picture:
        labels = np.asarray(picture)
    row_mm, column_mm = float(preview["row_spacing_mm"]), float(preview["column_spacing_mm"])
    width, height = labels.shape[1] * column_mm, labels.shape[0] * row_mm
    data = base64.b64encode(preview["image_png"]).decode("ascii")
    image = (
        f'<image id="{identifier}-image" width="{width:.2f}" height="{height:.2f}" '
        f'preserveAspectRatio="none" href="data:image/png;base64,{data}"/>'
    )
    overlay = (
        f'<use href="#{identifier}-image"/>'
        f'<g transform="scale({column_mm:.5f} {row_mm:.5f})">'
        + _filled(labels == LABEL_NONCORONARY, NONCORONARY_COLOUR)
        + _filled(labels == LABEL_CORONARY, CORONARY_COLOUR)
        + _stroked(labels >= LABEL_HEART, HEART_COLOUR)
        + f"</g>{_scale_bar(width, height)}"
    )
    size = f"{width:.2f} {height:.2f}"
    return KeySlice(
        int(preview["slice_index"]),
        description,
        _svg(f"{identifier}-plain", size, f"{description}, without marks", image),
        _svg(f"{identifier}-marked", size, f"{description}, marked", overlay),
    )


def fill_path(mask: NDArray[np.bool_]) -> str:
    """SVG path that covers the pixels of a mask, pixel (row, column) at (column, row)."""
    return "".join(f"M{c} {r}h{n}v1h-{n}z" for r, c, n in _runs(mask))


def outline_path(mask: NDArray[np.bool_]) -> str:
    """SVG path along the boundary of a mask, one piece per straight segment."""
    padded = np.pad(np.asarray(mask, bool), 1)
    below = padded[1:, 1:-1] != padded[:-1, 1:-1]
    right = padded[1:-1, 1:] != padded[1:-1, :-1]
    return "".join(
        [f"M{c} {r}h{n}" for r, c, n in _runs(below)]
        + [f"M{c} {r}v{n}" for c, r, n in _runs(right.T)]
    )


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Row, first column and length of each run of True along the rows."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, begins = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    return list(zip(rows.tolist(), begins.tolist(), (ends - begins).tolist(), strict=True))


def _filled(mask: NDArray[np.bool_], colour: str) -> str:
    if not mask.any():
        return ""
    return f'<path d="{fill_path(mask)}" fill="{colour}" fill-opacity=".35"/>' + _stroked(
        mask, colour
    )


def _stroked(mask: NDArray[np.bool_], colour: str) -> str:
    return (
        f'<path d="{outline_path(mask)}" fill="none" stroke="{colour}" stroke-width="1.5" '
        'stroke-linecap="square" vector-effect="non-scaling-stroke"/>'
    )


def _scale_bar(width: float, height: float) -> str:
    if width < 2 * _SCALE_BAR_MM:
        return ""
    return (
        f'<rect x="4" y="{height - 5:.2f}" width="{_SCALE_BAR_MM:g}" height="1.2" fill="#fff" '
        'stroke="#000" stroke-width=".4"/>'
    )


def _svg(identifier: str, size: str, description: str, body: str) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {size}" role="img" aria-labelledby="{identifier}-text">'
        f'<title id="{identifier}-text">{escape(description)}</title>{body}</svg>'
    )
