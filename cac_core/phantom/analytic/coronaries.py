"""Coronary arteries and their anatomical variation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from cac_core.phantom.analytic.anatomy import Thorax
from cac_core.phantom.annotated import Site

Points = NDArray[np.float64]
Knots = list[tuple[float, float, float]]

#: Control points in heart coordinates (u lateral, v anterior, w to the apex).
_LM: Knots = [(4, 10, -12), (10, 18, -12), (17, 22, -9)]
_LAD: Knots = [(17, 22, -9), (14, 30, 4), (10, 30, 22), (6, 26, 40), (2, 16, 58)]
_LCX: Knots = [(17, 22, -9), (32, 14, -7), (42, -6, -6), (36, -28, -4), (22, -38, -2)]
_RCA: Knots = [(-12, 12, -10), (-28, 26, -6), (-44, 12, -4), (-44, -12, -3), (-26, -32, 2)]
_POSTERIOR: Knots = [(-8, -34, 22), (0, -28, 42)]
_DIAGONAL: Knots = [(12, 30, 12), (28, 24, 24), (36, 12, 38)]
_MARGINAL: Knots = [(42, -4, -6), (46, -10, 14), (40, -14, 34)]
_RAMUS: Knots = [(17, 22, -9), (34, 20, 6), (42, 10, 26)]
_RIGHT_MARGINAL: Knots = [(-44, 10, -4), (-38, 20, 16), (-24, 24, 34)]


@dataclass(frozen=True)
class Artery:
    """An artery or branch: site, centre line (n, 3) in mm of the image, and radius."""

    site: Site
    line: Points
    radius_mm: float
    is_branch: bool


def draw_arteries(thorax: Thorax, rng: np.random.Generator, spread: float = 1.0) -> list[Artery]:
    """Draw the coronary tree: main arteries in the fat around the muscle, and branches.

    The right coronary artery supplies the inferior wall in about nine of ten people, the circumflex
    in the others. Diagonals, marginals and a ramus occur with a probability each.

    Parameters
    ----------
    spread : variation of the courses relative to patients.
    """
    right_dominant = rng.random() < 0.88
    rca = [*_RCA, *_POSTERIOR] if right_dominant else _RCA[: 4 + int(rng.integers(0, 2))]
    lcx = _LCX if right_dominant else [*_LCX, (2, -38, 6), (2, -32, 28)]
    if right_dominant and rng.random() < 0.35:
        lcx = _LCX[:4]
    plan = [(Site.LM, _LM, False), (Site.LAD, _LAD, False)]
    plan += [(Site.LCX, lcx, False), (Site.RCA, rca, False)]
    for site, knots, share in (
        (Site.LAD, _DIAGONAL, 0.7),
        (Site.LCX, _MARGINAL, 0.6),
        (Site.LCX, _RAMUS, 0.25),
        (Site.RCA, _RIGHT_MARGINAL, 0.4),
    ):
        if rng.random() < share:
            plan.append((site, knots, True))
    calibre = float(rng.uniform(1.1, 1.7))
    tortuous = float(rng.uniform(0.2, 1.6))
    shift = rng.normal(0, 1.5, 3)
    arteries = []
    for site, knots, is_branch in plan:
        local = np.array(knots) + shift
        # Origins are connected; the further course varies.
        local[1:] += rng.normal(0, 2.0 * spread, (len(local) - 1, 3)) * (site is not Site.LM)
        line = resample(thorax.frame.to_patient(local), 1.0)
        if site is not Site.LM:
            line = _lift(thorax, line, float(rng.uniform(1.8, 4.5)))
        line = thorax.warp.to_image(line + _tortuosity(len(line), tortuous, rng))
        radius = calibre * (1.25 if site is Site.LM else 0.75 if is_branch else 1.0)
        arteries.append(Artery(site, line, radius, is_branch))
    return arteries


def resample(knots: Points, step: float) -> Points:
    """A monotone cubic curve through the knots (n, 3), one point per `step` mm."""
    lengths = np.linalg.norm(np.diff(knots, axis=0), axis=1)
    at = np.concatenate([[0], np.cumsum(lengths)])
    return np.asarray(PchipInterpolator(at, knots)(np.arange(0, at[-1], step)))


def _tortuosity(n: int, strength_mm: float, rng: np.random.Generator) -> Points:
    """Smooth tortuosity of an artery, with wavelengths of about 15 to 30 mm."""
    at = np.arange(n)[:, None]
    swing = np.zeros((n, 3))
    for _ in range(3):
        wave = np.sin(2 * np.pi * at / rng.uniform(14, 32, 3) + rng.uniform(0, 2 * np.pi, 3))
        swing += wave * rng.normal(0, 0.4, 3)
    # The origin stays at the parent artery.
    return np.asarray(swing * strength_mm * np.minimum(1.0, at / 8))


def _lift(thorax: Thorax, line: Points, distance_mm: float) -> Points:
    """Move each point radially from the long axis of the heart to just outside the muscle."""
    axis = thorax.frame.axes[2]
    along = (line - thorax.frame.centre) @ axis
    foot = thorax.frame.centre + along[:, None] * axis
    ray = line - foot
    ray /= np.linalg.norm(ray, axis=1)[:, None]
    radii = np.arange(0.0, 75.0, 0.5)
    grid = foot[:, None, :] + radii[None, :, None] * ray[:, None, :]
    inside = thorax.muscle_depth(grid.reshape(-1, 3)).reshape(len(line), -1) > 0
    outermost = np.where(inside, radii, 0.0).max(axis=1)
    window = np.ones(7) / 7
    smooth = np.convolve(np.pad(outermost, 3, mode="edge"), window, mode="valid")
    return np.asarray(foot + (smooth + distance_mm)[:, None] * ray)
