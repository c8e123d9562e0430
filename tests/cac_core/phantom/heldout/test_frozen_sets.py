"""The test generators: plausible pictures, repeatable, with truth that lies where it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from cac_core.errors import UsageError
from cac_core.phantom.annotated import AnnotatedScan, Site
from cac_core.phantom.heldout.frozen_sets import (
    TEST_SETS,
    case_digest,
    frozen_digest,
    kept_case,
    make_case,
    set_digest,
)
from cac_core.phantom.heldout.implanted import make_variant, variant_of
from cac_core.phantom.heldout.real_chests import load_host
from cac_core.phantom.heldout.second_generator import synthesise_second


def check(scan: AnnotatedScan) -> None:
    """What every test scan must satisfy."""
    assert scan.hu.shape == scan.heart_mask.shape == scan.calcium_site.shape
    assert scan.hu.shape[1:] == (512, 512)
    volume = scan.heart_mask.sum() * np.prod(scan.spacing_mm) / 1000
    assert 300 < volume < 1500
    parts, _ = label(scan.heart_mask)
    assert np.bincount(parts.ravel())[1:].max() > 0.97 * scan.heart_mask.sum()
    plain = scan.heart_mask & (scan.calcium_site == 0)
    clean = scan.hu_noise_free[plain]
    assert 30 < np.median(clean[clean > 10]) < 62
    # Nothing in the heart scores that the truth does not know.
    assert (clean >= 130).sum() <= 40
    noise = (scan.hu - scan.hu_noise_free.astype(float))[plain]
    assert 14 < noise.std() < 40
    coronary = scan.calcium_class == 1
    if coronary.any():
        assert coronary[scan.heart_mask].sum() >= 0.97 * coronary.sum()
    # Lungs to both sides, the heart more to the left.
    lung = (scan.hu_noise_free < -600) & (scan.hu_noise_free > -960)
    assert lung.sum() > 0.03 * scan.hu.size


@pytest.fixture(scope="module")
def second() -> AnnotatedScan:
    # Seed 4 has coronary calcium (see the assertion below).
    return synthesise_second(4)


def test_second_generator(second) -> None:
    check(second)
    assert any(site.is_coronary for site in map(Site, np.unique(second.calcium_site)))
    columns = np.nonzero(second.heart_mask)[2]
    assert columns.mean() > 256  # the patient's left


@pytest.mark.slow
def test_second_generator_repeats_itself(second) -> None:
    assert case_digest(synthesise_second(4)) == case_digest(second)


@pytest.fixture(scope="module")
def variants(request: pytest.FixtureRequest) -> list[AnnotatedScan]:
    data = Path(__file__).parents[3].parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the folder of real data (../shared/data) is not here")
    host = load_host("crop", data)
    return [make_variant(host, seed) for seed in (2, 2)]


def test_implanted_variants(variants) -> None:
    first, again = variants
    assert case_digest(first) == case_digest(again)
    check(first)


def test_no_contrast_medium_is_left_in_the_apex(shared_data: Path) -> None:
    # In this chest the apex reaches below the lowest slice that is outlined.
    host = load_host("crop", shared_data)
    low = int(np.flatnonzero(host.heart.any(axis=(1, 2)))[0])
    apex = binary_dilation(host.heart[low], iterations=4)
    assert host.hu[low - 4 : low, apex].max() < 130


def test_digests_depend_on_images_and_order(second) -> None:
    one = case_digest(second)
    assert set_digest([one, "x"]) != set_digest(["x", one])
    assert all(
        frozen_digest(name) is None or len(str(frozen_digest(name))) == 64 for name in TEST_SETS
    )


def test_external_set_is_at_5_mm_and_its_own_seeds(tmp_path: Path) -> None:
    scan = kept_case("external", 0, None, tmp_path)
    assert case_digest(kept_case("external", 0, None, tmp_path)) == case_digest(scan)
    assert scan.spacing_mm[0] == 5.0
    assert scan.name == "synthetic-500000"


def test_a_cached_scan_equals_the_generated_one(
    tmp_path: Path, second: AnnotatedScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kept"
    with monkeypatch.context() as patched:
        patched.setattr("cac_core.phantom.heldout.frozen_sets.make_case", lambda *_: second)
        made = kept_case("cross-generator", 7, None, folder)
    with monkeypatch.context() as patched:  # it is read, not made again
        patched.delattr("cac_core.phantom.heldout.frozen_sets.make_case")
        again = kept_case("cross-generator", 7, None, folder)
    assert case_digest(again) == case_digest(made) == case_digest(second)
    assert again.name == second.name and again.spacing_mm == second.spacing_mm
    np.testing.assert_array_equal(again.hu_noise_free, second.hu_noise_free)
    assert len(list(folder.iterdir())) == 1
    with pytest.raises(UsageError, match="--keep"):
        kept_case("external", 0, None, folder / "cross-generator-7.npz.zst")


def test_missing_sets_and_chests_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Choose from external"):
        make_case("internal", 0, None)
    with pytest.raises(UsageError, match="--data"):
        make_case("semi-synthetic", 0, None)
    with pytest.raises(UsageError, match="real chests are not in"):
        make_case("semi-synthetic", 0, tmp_path)
    with pytest.raises(UsageError, match="Choose from labelled"):
        variant_of("labeled", 0, tmp_path)
