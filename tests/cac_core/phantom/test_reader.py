"""Simulated readers err where people do, and grade as the paper's did."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cac_core.phantom.annotated import AnnotatedScan, Site
from cac_core.phantom.reader import ReaderHabits, annotate, visual_grade


def scan(lesions: dict[Site, tuple[slice, slice, slice]], noise: float = 20.0) -> AnnotatedScan:
    """A box of blood with bright blocks and noise."""
    shape = (10, 60, 60)
    clean = np.full(shape, 40.0)
    site = np.zeros(shape, np.uint8)
    for name, box in lesions.items():
        clean[box], site[box] = 500, name
    noisy = clean + np.random.default_rng(0).normal(0, noise, shape)
    return AnnotatedScan(
        noisy.astype(np.int16),
        clean.astype(np.int16),
        np.ones(shape, bool),
        site,
        (5.0, 0.9, 0.9),
        "box",
    )


LARGE = {Site.LAD: np.s_[3:6, 10:20, 10:20], Site.AORTIC_VALVE: np.s_[3:6, 40:50, 40:50]}
CAREFUL = ReaderHabits(noise_marks=0.0, confused=0.0, device_as_calcium=0.0)


def test_large_lesions_are_marked_as_they_are() -> None:
    one = scan(LARGE)
    marked = annotate(one, 1, CAREFUL)
    np.testing.assert_array_equal(marked, np.where(one.hu >= 130, one.calcium_site, 0))


def test_small_lesions_are_missed_more_often_and_more_so_in_noise() -> None:
    def share(size: int, noise: float) -> float:
        one = scan({Site.LAD: np.s_[4:5, 10 : 10 + size, 10:11]}, noise)
        return float(np.mean([annotate(one, n, CAREFUL).any() for n in range(200)]))

    assert share(12, 20) > 0.9 > share(2, 20) > 0.05
    assert share(3, 30) < share(3, 10)


def test_neighbouring_structures_are_confused_sometimes() -> None:
    both = scan({Site.LCX: np.s_[3:6, 10:16, 10:16], Site.MITRAL_VALVE: np.s_[3:6, 18:30, 10:16]})
    habits = replace(CAREFUL, confused=0.4)
    called = [annotate(both, n, habits)[4, 12, 12] for n in range(200)]
    swapped = np.mean([site == Site.MITRAL_VALVE for site in called])
    assert 0.25 < swapped < 0.55
    assert set(called) <= {Site.LCX, Site.MITRAL_VALVE}


def test_noise_is_marked_sometimes() -> None:
    empty = scan({}, noise=38.0)
    marks = [annotate(empty, n, replace(CAREFUL, noise_marks=0.5)).any() for n in range(200)]
    assert np.mean(marks) == pytest.approx(1 - np.exp(-0.5), abs=0.12)


def test_same_seed_same_reader() -> None:
    one = scan(LARGE)
    np.testing.assert_array_equal(annotate(one, 5), annotate(one, 5))


def test_visual_grades_have_the_frequencies_of_the_supplement() -> None:
    """Supplemental Table 3: of 962 with expert score 0, 740 were graded absent."""
    grades = [visual_grade("0", n) for n in range(4000)]
    assert np.mean([g == "absent" for g in grades]) == pytest.approx(740 / 962, abs=0.025)
    high = [visual_grade(">400", n) for n in range(4000)]
    assert np.mean([g == "extensive" for g in high]) == pytest.approx(278 / 399, abs=0.025)
    assert {"absent", "equivocal", "present", "extensive"} == set(grades) | set(high)
