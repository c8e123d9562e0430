"""Draws `samples.png`: synthetic and semi-synthetic slices beside real ones, and prints HU figures.

    python docs/pictures/make.py REAL_CHESTS

REAL_CHESTS is the folder that docs/evaluation.md describes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from cac_core.dicom.volume import read_volume
from cac_core.phantom.analytic.acquisition import draw_external_settings
from cac_core.phantom.analytic.scan import synthesise_scan
from cac_core.phantom.heldout.implanted import make_variant
from cac_core.phantom.heldout.real_chests import host_names, load_host
from cac_core.phantom.heldout.second_generator import synthesise_second

mpl.use("Agg")
import matplotlib.pyplot as plt

WINDOW = (-160, 240)


def main(data: Path) -> None:
    """Draw the picture and print the table."""
    rows: list[tuple[str, list[NDArray[np.generic]]]] = []
    figures: list[tuple[str, list[NDArray[np.generic]], list[float]]] = []
    made = [
        synthesise_scan(seed, draw_external_settings(np.random.default_rng(seed)))
        for seed in (910_001, 910_002, 910_003)
    ]
    second = [synthesise_second(seed) for seed in (910_001, 910_002, 910_003)]
    implanted = [
        make_variant(load_host(name, data), 910_000 + n) for n, name in enumerate(host_names())
    ]
    for title, scans in (
        ("training generator", made),
        ("second generator", second),
        ("implanted in real chests", implanted),
    ):
        rows.append(
            (title, [_middle(scan.hu, scan.heart_mask, q) for scan in scans for q in (0.45, 0.75)])
        )
        noise = [float((s.hu - s.hu_noise_free.astype(float))[s.heart_mask].std()) for s in scans]
        figures.append((title, [s.hu_noise_free for s in scans], noise))
    files = sorted((data / "chest_contrast_siemens" / "ct").glob("*"))
    real = read_volume(files).hu
    rows.append(("real, late contrast, full dose", [real[k] for k in (44, 47, 50, 53, 57, 61)]))
    figures.append(("real, late contrast, full dose", [real], [_patch_noise(real)]))
    _draw(rows, Path(__file__).with_name("samples.png"))
    sys.stdout.write("| | lung | fat | soft tissue | noise in the heart |\n|---|---|---|---|---|\n")
    for title, volumes, noise in figures:
        lung, fat, soft = (
            np.mean([np.median(v[(v >= low) & (v < high)]) for v in volumes])
            for low, high in ((-930, -650), (-140, -60), (20, 130))
        )
        spread = f"{min(noise):.0f} to {max(noise):.0f}" if len(noise) > 1 else f"{noise[0]:.0f}"
        sys.stdout.write(f"| {title} | {lung:.0f} | {fat:.0f} | {soft:.0f} | {spread} |\n")


def _middle(hu: NDArray[np.int16], heart: NDArray[np.bool_], share: float) -> NDArray[np.int16]:
    slices = np.flatnonzero(heart.any(axis=(1, 2)))
    plane: NDArray[np.int16] = hu[slices[int(share * (len(slices) - 1))]]
    return plane


def _patch_noise(hu: NDArray[np.int16]) -> float:
    """Standard deviation in a square of the left ventricle of the real chest."""
    return float(hu[50, 200:225, 300:325].std())


def _draw(rows: list[tuple[str, list[NDArray[np.generic]]]], path: Path) -> None:
    figure, axes = plt.subplots(len(rows), 6, figsize=(15, 2.4 * len(rows)), facecolor="black")
    for line, (title, planes) in zip(axes, rows, strict=True):
        for axis, plane in zip(line, planes, strict=True):
            axis.imshow(plane[70:450, 40:472], cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1])
            axis.axis("off")
        line[0].set_title(title, color="white", loc="left", fontsize=11)
    figure.subplots_adjust(0, 0, 1, 0.97, 0.01, 0.12)
    figure.savefig(path, dpi=70)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
