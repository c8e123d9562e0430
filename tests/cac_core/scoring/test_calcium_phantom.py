"""The QRM calcium phantom on a real scanner, against scores published for the same images.

Reference: van Praagh et al., Med Phys 2021, doi 10.1002/mp.14912 (their own software); one scan
of 47 slices of 3 mm, 120 kVp, feet first. Seven of the nine inserts have a score, two are below
the threshold. Rows and columns of `reference.json` are those of the stored image; this scan's
stored image already runs to posterior and to the patient's left, so they hold in the canonical
volume too. Slices are counted upwards by position, as ours are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from cac_core.dicom.volume import CtVolume, read_volume
from cac_core.protocol import ScoringProtocol
from cac_core.scoring.agatston import CalciumScore, score_calcium
from cac_core.scoring.lesions import label_lesions

#: Slices around the inserts, as the reference advises.
SLICES = slice(19, 26)
SCORED = (
    "Large_HD",
    "Medium_HD",
    "Small_HD",
    "Large_MD",
    "Medium_MD",
    "Large_LD",
    "Medium_LD",
)


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> Any:
    return json.loads((shared_data / "qrm_calcium_phantom" / "reference.json").read_text())


@pytest.fixture(scope="module")
def scan(shared_data: Path) -> CtVolume:
    return read_volume(sorted((shared_data / "qrm_calcium_phantom" / "dicom").iterdir()))


@pytest.fixture(scope="module")
def scorer(scan: CtVolume, reference: Any) -> Callable[[str, ScoringProtocol], CalciumScore]:
    def score(insert: str, protocol: ScoringProtocol) -> CalciumScore:
        box = insert_box(scan, reference["inserts"][insert])
        calcium = box.astype(np.uint8)
        lesions = label_lesions(scan.hu, calcium, box, scan.spacing_mm, protocol)
        return score_calcium(lesions, protocol)

    return score


def insert_box(scan: CtVolume, insert: dict[str, int]) -> NDArray[np.bool_]:
    """Mark the square around an insert, in the slices that hold calcium."""
    box = np.zeros(scan.hu.shape, bool)
    reach = insert["half_box"]
    box[
        SLICES,
        insert["row"] - reach : insert["row"] + reach + 1,
        insert["col"] - reach : insert["col"] + reach + 1,
    ] = True
    return box


def test_the_reference_has_seven_inserts_with_a_score(reference: Any) -> None:
    scored = {name for name, insert in reference["inserts"].items() if insert["agatston"] > 0}
    assert scored == set(SCORED)


@pytest.mark.parametrize("insert", SCORED)
def test_published_scores(scorer: Any, reference: Any, insert: str) -> None:
    expected = reference["inserts"][insert]
    factor = reference["mass_calibration_factor"]
    score = scorer(insert, ScoringProtocol(mass_calibration_mg_per_ml_hu=factor))
    assert score.agatston == pytest.approx(expected["agatston"], abs=0.1)
    assert score.calcium_volume_mm3 == pytest.approx(expected["volume_mm3"], abs=0.1)
    assert score.calcium_mass_mg == pytest.approx(expected["mass_mg_fqm"], abs=0.01)


def test_total(scorer: Any) -> None:
    total = sum(scorer(insert, ScoringProtocol()).agatston for insert in SCORED)
    assert total == pytest.approx(966.6, abs=0.1)


def test_other_rules_miss_the_published_scores(scorer: Any) -> None:
    """The phantom distinguishes the rules; otherwise agreement would mean little."""

    def total(protocol: ScoringProtocol) -> float:
        return sum(scorer(insert, protocol).agatston for insert in SCORED)

    default = ScoringProtocol()
    assert total(replace(default, connectivity=4)) == pytest.approx(962.8, abs=0.1)
    assert total(replace(default, min_area_mm2=0.0)) > 975
    assert total(replace(default, threshold_hu=131.0)) < 966.0


def test_three_dimensional_objects_would_score_higher(scan: CtVolume, reference: Any) -> None:
    pixel_mm2 = scan.spacing_mm[1] * scan.spacing_mm[2]
    total = 0.0
    for insert in SCORED:
        candidates = insert_box(scan, reference["inserts"][insert]) & (scan.hu >= 130)
        labels, _ = ndimage.label(candidates, np.ones((3, 3, 3)))
        for number, box in enumerate(ndimage.find_objects(labels), start=1):
            inside = labels[box] == number
            area = inside.sum() * pixel_mm2
            if area >= 1:
                total += area * min(int(scan.hu[box][inside].max()) // 100, 4)
    assert total > 1070
