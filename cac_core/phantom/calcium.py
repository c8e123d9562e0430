"""Coronary arteries on their courses, plaques, and calcium elsewhere, as blurred Gaussian blobs.

Each structure is a chain of Gaussian blobs. Convolving a Gaussian with the Gaussian point spread
of scanner and motion gives a Gaussian again, and the slice profile is integrated exactly, so the
rendered contribution is the analytic answer and needs no fine grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.special import erf

from cac_core.phantom.anatomy import Thorax

Points = NDArray[np.float64]

#: Control points of the courses in heart coordinates (u lateral, v anterior, w to the apex).
_COURSES: dict[str, list[tuple[float, float, float]]] = {
    "LM": [(4, 10, -12), (10, 18, -12), (17, 22, -9)],
    "LAD": [(17, 22, -9), (14, 30, 4), (10, 30, 22), (6, 26, 40), (2, 16, 58)],
    "LCX": [(17, 22, -9), (32, 14, -7), (42, -6, -6), (36, -28, -4), (22, -38, -2)],
    "RCA": [
        (-12, 12, -10),
        (-28, 26, -6),
        (-44, 12, -4),
        (-44, -12, -3),
        (-26, -32, 2),
        (-8, -34, 22),
        (0, -28, 42),
    ],
}
#: Share of plaques per artery; the LAD carries most, as in life.
_ARTERY_SHARE = {"LM": 0.08, "LAD": 0.46, "LCX": 0.18, "RCA": 0.28}


@dataclass(frozen=True)
class Blobs:
    """Gaussian blobs: centres (n, 3) in mm, standard deviations (n,) in mm, peak HU (n,)."""

    centres: Points
    sigmas: NDArray[np.float64]
    peaks: NDArray[np.float64]

    @staticmethod
    def join(parts: list[Blobs]) -> Blobs:
        """All blobs of the parts."""
        if not parts:
            return Blobs(np.zeros((0, 3)), np.zeros(0), np.zeros(0))
        return Blobs(
            np.concatenate([part.centres for part in parts]),
            np.concatenate([part.sigmas for part in parts]),
            np.concatenate([part.peaks for part in parts]),
        )


@dataclass(frozen=True)
class PointSpread:
    """Blur of the acquisition: Gaussian sigmas in mm along x, y and z, and the slice thickness."""

    sigma_mm: tuple[float, float, float]
    slice_mm: float


def coronary_courses(thorax: Thorax, rng: np.random.Generator) -> dict[str, Points]:
    """Centre lines (n, 3) in mm, one point per millimetre or so, in the fat around the muscle."""
    courses = {}
    for name, knots in _COURSES.items():
        local = np.array(knots) + rng.normal(0, 1.5, (len(knots), 3)) * (name != "LM")
        line = _resample(thorax.frame.to_patient(local), 1.0)
        if name != "LM":
            line = _lift(thorax, line)
        courses[name] = line
    return courses


def lumen(courses: dict[str, Points]) -> Blobs:
    """The arteries themselves: blood in fat, some 120 HU above their surroundings."""
    return Blobs.join([_chain(line, np.full(len(line), 1.35), 120.0) for line in courses.values()])


def draw_burden(category: str, rng: np.random.Generator) -> float:
    """Agatston score to aim at, spread evenly on a log scale inside the category."""
    if category == "0":
        return 0.0
    low, high = {"1-100": (2.0, 95.0), "101-400": (110.0, 380.0), ">400": (430.0, 2600.0)}[category]
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_plaque(courses: dict[str, Points], burden: float, rng: np.random.Generator) -> Blobs:
    """One coronary plaque, pin-point to confluent: larger where there is much calcium."""
    size = float(np.clip(np.log10(burden + 10) / 2.3, 0.45, 1.4))
    line = courses[rng.choice(list(_ARTERY_SHARE), p=list(_ARTERY_SHARE.values()))]
    length = float(np.clip(rng.lognormal(1.3, 0.8) * size**2, 1.0, 45.0))
    # Plaque prefers the proximal half of an artery.
    start = int(len(line) * rng.beta(1.1, 2.2) * 0.85)
    part = line[start : start + max(1, round(length))]
    part = part + rng.normal(0, 0.7, 3) + rng.normal(0, 0.25, part.shape)
    sigma = float(np.clip(rng.lognormal(-0.05, 0.3) * size, 0.5, 2.0))
    return _chain(part, np.full(len(part), sigma), float(rng.uniform(420, 1300)))


def draw_noncoronary(thorax: Thorax, category: str, rng: np.random.Generator) -> Blobs:
    """Calcium of valves and aortic wall; more of it where the coronaries have more."""
    burden = {"0": 0.5, "1-100": 0.8, "101-400": 1.1, ">400": 1.4}[category]
    parts = []
    to_patient = thorax.frame.to_patient
    if rng.random() < 0.16 * burden:  # mitral annulus, next to the circumflex
        angles = rng.uniform(-0.4, 1.2) + np.linspace(0, rng.uniform(0.3, 2.6), 24)
        ring = np.stack([15 + 19 * np.cos(angles), -14 - 17 * np.sin(angles), 0 * angles - 6], 1)
        parts.append(_chain(to_patient(ring), _sigmas(rng, 24, 1.2), rng.uniform(450, 1100)))
    if rng.random() < 0.2 * burden:  # aortic valve
        for _ in range(int(rng.integers(1, 5))):
            at = to_patient(np.array([[-4, 6, -9.0]]) + rng.normal(0, 5, (1, 3)))
            parts.append(
                _chain(at + rng.normal(0, 1, (4, 3)), _sigmas(rng, 4, 1.0), rng.uniform(350, 900))
            )
    for share, first, last in ((0.22, 4, 60), (0.3, 110, 200), (0.35, 210, 400)):
        if rng.random() < share * burden:  # root and ascending, arch, descending aorta
            for _ in range(int(rng.integers(1, 5))):
                parts.append(_wall_plaque(thorax, int(rng.integers(first, last)), rng))
    return Blobs.join(parts)


def render(
    blobs: Blobs,
    spread: PointSpread,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    z: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Sum of all blobs after blur, in HU, of shape (slices, rows, columns).

    Parameters
    ----------
    x, y, z : centres of columns, rows and slices, mm, evenly spaced and rising.
    """
    out = np.zeros((len(z), len(y), len(x)), np.float32)
    blur = np.asarray(spread.sigma_mm)
    for centre, sigma, peak in zip(blobs.centres, blobs.sigmas, blobs.peaks, strict=True):
        wide = np.sqrt(sigma**2 + blur**2)
        # Mass is kept: the wider the blob gets, the lower its peak.
        amplitude = peak * sigma**3 / wide.prod()
        sx, wx = _profile(x, centre[0], wide[0])
        sy, wy = _profile(y, centre[1], wide[1])
        sz, wz = _slice_profile(z, centre[2], wide[2], spread.slice_mm)
        if wx.size and wy.size and wz.size:
            out[sz, sy, sx] += (amplitude * wz)[:, None, None] * (wy[:, None] * wx)
    return out


def _profile(at: NDArray[np.float32], centre: float, sigma: float) -> tuple[slice, Points]:
    lo, hi = np.searchsorted(at, [centre - 3.2 * sigma, centre + 3.2 * sigma])
    near = at[lo:hi].astype(np.float64)
    return slice(lo, hi), np.exp(-0.5 * ((near - centre) / sigma) ** 2)


def _slice_profile(at: Points, centre: float, sigma: float, thick: float) -> tuple[slice, Points]:
    """A Gaussian averaged over each slice's thickness."""
    reach = 3.2 * sigma + thick / 2
    lo, hi = np.searchsorted(at, [centre - reach, centre + reach])
    edge = np.sqrt(2) * sigma
    upper = erf((at[lo:hi] + thick / 2 - centre) / edge)
    lower = erf((at[lo:hi] - thick / 2 - centre) / edge)
    return slice(lo, hi), (upper - lower) * 0.5 * np.sqrt(2 * np.pi) * sigma / thick


def _chain(points: Points, sigmas: NDArray[np.float64], density: float) -> Blobs:
    """Blobs along a line whose overlap adds up to `density`, whatever their spacing."""
    if len(points) > 1:
        spacing = np.linalg.norm(np.diff(points, axis=0), axis=1)
        spacing = np.append(spacing, spacing[-1])
    else:
        spacing = np.full(1, np.inf)
    overlap = np.maximum(1.0, np.sqrt(2 * np.pi) * sigmas / np.maximum(spacing, 1e-3))
    return Blobs(points, sigmas, density / overlap)


def _sigmas(rng: np.random.Generator, n: int, median: float) -> NDArray[np.float64]:
    return np.clip(rng.lognormal(np.log(median), 0.3, n), 0.5, 2.5)


def _wall_plaque(thorax: Thorax, at: int, rng: np.random.Generator) -> Blobs:
    """A plate in the aortic wall."""
    centre, tangent = thorax.aorta.points[at], thorax.aorta.points[at + 1] - thorax.aorta.points[at]
    tangent = tangent / np.linalg.norm(tangent)
    side = np.cross(tangent, rng.normal(size=3))
    side /= np.linalg.norm(side)
    other = np.cross(tangent, side)
    angles = np.linspace(0, rng.uniform(0.1, 0.9), 8)[:, None]
    rim = centre + thorax.aorta.radius * (np.cos(angles) * side + np.sin(angles) * other)
    return _chain(rim, _sigmas(rng, 8, 1.0), float(rng.uniform(350, 1100)))


def _resample(knots: Points, step: float) -> Points:
    lengths = np.linalg.norm(np.diff(knots, axis=0), axis=1)
    at = np.concatenate([[0], np.cumsum(lengths)])
    return np.asarray(PchipInterpolator(at, knots)(np.arange(0, at[-1], step)))


def _lift(thorax: Thorax, line: Points) -> Points:
    """Move each point along its ray from the heart's long axis to just outside the muscle."""
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
    return np.asarray(foot + (smooth + 2.5)[:, None] * ray)
