"""Key slices: choice, pixels, size limit, and nothing but the heart."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cac_core.protocol import ScoringProtocol
from cac_core.scoring.lesions import label_lesions
from cac_core.scoring.preview import MAX_BYTES, MAX_SLICES, preview_rows
from schemas.codes import PreviewChoice
from schemas.preview import PREVIEWS
from tests.builders.rows import key

SPACING = (3.0, 1.0, 1.0)


def volume(shape: tuple[int, int, int] = (20, 64, 80)) -> tuple[Any, Any, Any]:
    """A heart of 24 x 30 pixels in slices 4 to 15, nothing calcified."""
    hu = np.full(shape, 40, np.int16)
    heart = np.zeros(shape, bool)
    heart[4:16, 20:44, 30:60] = True
    return hu, np.zeros(shape, np.uint8), heart


def put(hu: Any, classes: Any, index: int, kind: int, columns: int) -> None:
    """A lesion of 3 x `columns` pixels."""
    box = np.s_[index, 30:33, 40 : 40 + columns]
    hu[box], classes[box] = 300, kind


def rows(
    hu: Any, classes: Any, heart: Any, spacing: tuple[float, float, float] = SPACING
) -> list[dict[str, Any]]:
    lesions = label_lesions(hu, classes, heart, spacing, ScoringProtocol(), threshold_hu=130)
    positions = -900.0 + spacing[0] * np.arange(len(hu))
    made = preview_rows(hu, classes, heart, spacing, positions, lesions)
    identity = {"study_key": key(1), "protocol_digest": "p" * 16}
    PREVIEWS.from_rows([identity | row for row in made])
    return made


def pixels(png: object) -> Any:
    assert isinstance(png, bytes)
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_slices_with_the_most_coronary_calcium_are_kept() -> None:
    hu, classes, heart = volume()
    for index, columns in ((5, 2), (6, 9), (8, 7), (11, 5), (12, 3), (14, 8)):
        put(hu, classes, index, 1, columns)
    put(hu, classes, 13, 2, 12)
    made = rows(hu, classes, heart)
    assert [row["slice_index"] for row in made] == [6, 8, 11, 14]
    assert {row["shown_for"] for row in made} == {PreviewChoice.CORONARY.value}
    # 27 pixels of 1 mm2, weight 3 (300 HU), slices 3 mm apart.
    assert made[0]["agatston"] == pytest.approx(27 * 3)
    assert made[0]["slice_position_mm"] == -900.0 + 6 * 3.0


def test_without_coronary_calcium_the_middle_and_the_other_calcium() -> None:
    hu, classes, heart = volume()
    assert [(r["slice_index"], r["shown_for"]) for r in rows(hu, classes, heart)] == [
        (10, "mid_heart")
    ]
    for index, columns in ((5, 2), (6, 4), (9, 3)):
        put(hu, classes, index, 2, columns)
    found = {row["slice_index"]: row["shown_for"] for row in rows(hu, classes, heart)}
    assert found == {6: "noncoronary", 9: "noncoronary", 10: "mid_heart"}


def test_grey_values_and_labels_are_those_of_the_volume() -> None:
    hu, classes, heart = volume()
    hu[8] = np.arange(80) * 10 - 300  # -300 to 490 HU along the columns
    put(hu, classes, 8, 1, 6)
    classes[8, 5, 45] = 1  # outside the heart: counts nowhere
    hu[8, 40, 50], classes[8, 40, 50] = 400, 2
    (row,) = rows(hu, classes, heart)
    grey, label = pixels(row["image_png"]), pixels(row["label_png"])
    # The heart with 10 mm on every side: rows 10 to 53, columns 20 to 69.
    assert (row["first_row"], row["first_column"]) == (10, 20)
    assert grey.shape == label.shape == (44, 50)
    expected = np.clip((hu[8, 10:54, 20:70] + 160) / 400, 0, 1) * 255
    assert np.abs(grey - expected).max() <= 4.1, "a grey level is 255 / 63 wide"
    wanted = np.where(heart[8], 1, 0)
    wanted[30:33, 40:46] = 3
    wanted[40, 50] = 2
    assert np.array_equal(label, wanted[10:54, 20:70])


def test_pixels_of_fine_volumes_are_merged_without_loss_of_calcium() -> None:
    hu, classes = np.full((6, 700, 720), 40, np.int16), np.zeros((6, 700, 720), np.uint8)
    heart = np.zeros(hu.shape, bool)
    heart[1:5, 100:600, 90:610] = True
    hu[2, 301, 303], classes[2, 301, 303] = 500, 1
    hu[2, 301, 304], classes[2, 301, 304] = 500, 2
    spacing = (3.0, 0.25, 0.25)
    protocol = ScoringProtocol(min_area_mm2=0.0)
    lesions = label_lesions(hu, classes, heart, spacing, protocol, threshold_hu=130)
    (row,) = preview_rows(hu, classes, heart, spacing, np.arange(6.0), lesions)
    label = pixels(row["label_png"])
    merged = int(str(row["merged_pixels"]))
    assert merged == 3  # 600 pixels and 40 on either side, at most 256 a side
    assert row["row_spacing_mm"] == row["column_spacing_mm"] == 0.75
    assert label.shape == pixels(row["image_png"]).shape == (194, 200)
    at = (
        (301 - int(str(row["first_row"]))) // merged,
        (303 - int(str(row["first_column"]))) // merged,
    )
    assert label[at] == 3
    assert np.isin(label, (2, 3)).sum() <= 2


def test_a_heart_at_the_edge_is_not_cut() -> None:
    hu, classes, heart = volume()
    heart[:, :, 60:] = True
    (row,) = rows(hu, classes, heart)
    assert pixels(row["image_png"]).shape[1] == 80 - row["first_column"]


def test_an_empty_heart_mask_is_refused() -> None:
    hu, classes, heart = volume()
    with pytest.raises(ValueError, match="empty"):
        rows(hu, classes, np.zeros_like(heart))


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    side=st.integers(40, 330),
    noise=st.floats(0, 400),
    spacing=st.floats(0.3, 2.0),
)
def test_images_keep_within_the_size_limit(
    seed: int, side: int, noise: float, spacing: float
) -> None:
    """For any pixels, including pure noise."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(40, noise, (6, side, side)).astype(np.int16)
    heart = np.zeros(hu.shape, bool)
    heart[:, side // 8 : -side // 8, side // 8 : -side // 8] = True
    classes = rng.integers(0, 3, hu.shape).astype(np.uint8)
    made = rows(hu, classes, heart, (3.0, spacing, spacing))
    assert 1 <= len(made) <= MAX_SLICES
    for row in made:
        assert len(row["image_png"]) + len(row["label_png"]) <= MAX_BYTES
    assert MAX_BYTES * MAX_SLICES == 60_000, "the budget that the table states"


def test_the_same_volume_gives_the_same_bytes() -> None:
    hu, classes, heart = volume()
    put(hu, classes, 8, 1, 6)
    assert rows(hu, classes, heart) == rows(hu, classes, heart)
