"""Position, orientation and spacing of an instance, as columns of `instances`."""

from __future__ import annotations

from cac_core.dicom import tags
from cac_core.dicom.header_values import decimal_strings
from cac_core.dicom.increment import increment_and_extent
from cac_core.dicom.part10 import RawHeader

#: Columns of `instances` with ImagePositionPatient and ImageOrientationPatient.
POSITION_COLUMNS = ("position_x_mm", "position_y_mm", "position_z_mm")
COSINE_COLUMNS = (
    *("row_cosine_x", "row_cosine_y", "row_cosine_z"),
    *("column_cosine_x", "column_cosine_y", "column_cosine_z"),
)


def geometry_columns(raw: RawHeader) -> dict[str, object]:
    """Position, orientation and spacing of an instance; those of the first of several frames."""
    row: dict[str, object] = {}
    spacing = decimal_strings(_value(raw, tags.PixelSpacing), 2)
    if spacing is not None:
        row["row_spacing_mm"], row["column_spacing_mm"] = spacing
    orientation = decimal_strings(_value(raw, tags.ImageOrientationPatient), 6)
    if orientation is not None:
        row.update(zip(COSINE_COLUMNS, orientation, strict=True))
    position = decimal_strings(_value(raw, tags.ImagePositionPatient), 3)
    if position is not None:
        row.update(zip(POSITION_COLUMNS, position, strict=True))
    if len(raw.positions) > 1 and orientation is not None:
        row.update(_frame_spacing(raw.positions, orientation))
    return row


def _value(raw: RawHeader, tag: int) -> bytes:
    """Value of the data set, else of the functional groups."""
    return raw.values.get(tag) or raw.nested.get(tag, b"")


def _frame_spacing(positions: list[bytes], orientation: tuple[float, ...]) -> dict[str, object]:
    """Increment and coverage of the frames along the normal of the first (PS3.3 C.7.6.2.1.1)."""
    a, b, c, d, e, f = orientation
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    along = []
    for content in positions:
        point = decimal_strings(content, 3)
        if point is None:
            return {}
        along.append(sum(p * n for p, n in zip(point, normal, strict=True)))
    increment, extent = increment_and_extent(along)
    return {"frame_increment_mm": increment or 0.0, "frame_coverage_mm": extent}
