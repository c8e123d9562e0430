"""What the parts of the shipped cascade are worth: agreement without them, not trained anew.

    python -m bench.bench_parts [--scans 28] [--data REAL_CHESTS] [--kinds external,second]

Scans of the generators of the three test sets with other seeds than theirs. A branch is taken out
by setting the attention to 0 (trunk alone), 1 (sequence alone) or one half (mean); the place by
telling the middle of the heart everywhere; the silhouette by the box around it. A network trained
without a part makes up for it to some degree: `cac train --network` would show that, this does not.
Without --data, no scans are implanted in real chests.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cac_core.model.cascade import Cascade
from cac_core.model.convlstm import ConvLSTMSegmenter
from cac_core.model.decision import decide
from cac_core.model.preprocess import candidates
from cac_core.phantom.annotated import AnnotatedScan
from cac_core.phantom.chests import Host, host_names, load_host
from cac_core.phantom.implanted import make_variant
from cac_core.phantom.scan import draw_external_settings, synthesise_scan
from cac_core.phantom.second import synthesise_second
from cac_core.phantom.truth import true_agatston
from flows.evaluation import agreement

_EXTERNAL_SEED, _IMPLANT_SEED, _SECOND_SEED = 510_000, 610_000, 710_000
#: Attention that stands for a branch; None leaves it as it is.
_ATTENTION = {"whole": None, "trunk alone": 0.0, "sequence alone": 1.0, "mean of both": 0.5}


def main() -> None:
    """Measure and print, a line per kind of scan and part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=28)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--kinds", default="external,second,implanted")
    options = parser.parse_args()
    cascade = Cascade.load()
    for kind in options.kinds.split(","):
        if kind == "implanted" and options.data is None:
            continue
        rows = [_scores(cascade, scan) for scan in _scans(kind, options.scans, options.data)]
        print(f"{kind}, {len(rows)} scans")
        truth = [row["truth"] for row in rows]
        for part in rows[0]:
            found = agreement([row[part] for row in rows], truth)
            kappa, r2 = (
                "not defined" if found[name] is None else f"{found[name]:.3f}"
                for name in ("kappa_linear", "r2_log")
            )
            print(
                f"  {part:28} kappa {kappa}   true 0 scored below 1: "
                f"{found['reference_zero_scored_zero']} of {found['reference_zero']}   "
                f"r2 {r2}"
            )


def _scans(kind: str, count: int, data: Path | None) -> Iterator[AnnotatedScan]:
    hosts: dict[str, Host] = {}
    for n in range(count):
        if kind == "external":
            seed = _EXTERNAL_SEED + n
            yield synthesise_scan(seed, draw_external_settings(np.random.default_rng(seed)))
        elif kind == "second":
            yield synthesise_second(_SECOND_SEED + n)
        else:
            assert data is not None
            name = host_names()[n % len(host_names())]
            if name not in hosts:
                hosts[name] = load_host(name, data)
            yield make_variant(hosts[name], _IMPLANT_SEED + n)


def _scores(cascade: Cascade, scan: AnnotatedScan) -> dict[str, float]:
    """Agatston score of a scan with each part taken out."""
    hu, spacing = scan.hu, scan.spacing_mm
    heart = cascade.segment_heart(hu, spacing)
    return {
        "truth": true_agatston(hu, (scan.calcium_class == 1) & scan.heart_mask, spacing),
        **parts_taken_out(cascade, hu, heart, spacing),
    }


def parts_taken_out(
    cascade: Cascade,
    hu: NDArray[np.int16],
    heart: NDArray[np.bool_],
    spacing: tuple[float, float, float],
) -> dict[str, float]:
    """Agatston score with each part taken out, in a heart that was found."""

    def possible_in(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return candidates(hu, mask, spacing, threshold_hu=130, min_area_mm2=1.0, connectivity=8)

    def coronary(classes: NDArray[np.uint8]) -> float:
        return true_agatston(hu, classes == 1, spacing)

    network, possible = cascade.calcium, possible_in(heart)
    assert isinstance(network, ConvLSTMSegmenter)
    names = [*_ATTENTION, "voxel by voxel", "place blank", "box in place of silhouette"]
    scores = dict.fromkeys(names, 0.0) | {"threshold alone": true_agatston(hu, heart, spacing)}
    if not possible.any():
        return scores
    fuse, place = network.fuse, cascade._place
    for name, attention in _ATTENTION.items():
        if attention is not None:
            network.fuse = _fixed(network, attention)  # type: ignore[method-assign]
        found = cascade.candidate_scores(hu, possible, heart)
        network.fuse = fuse  # type: ignore[method-assign]
        scores[name] = coronary(decide(possible, found))
        if name == "whole":
            classes = np.zeros(hu.shape, np.uint8)
            classes[possible] = found.argmax(axis=1)
            scores["voxel by voxel"] = coronary(classes)
    cascade._place = lambda *where: torch.zeros_like(place(*where))  # type: ignore
    scores["place blank"] = coronary(cascade.classify(hu, possible, heart))
    cascade._place = place  # type: ignore[method-assign]
    box = np.zeros_like(heart)
    box[tuple(slice(at.min(), at.max() + 1) for at in np.nonzero(heart))] = True
    everywhere = possible_in(box)
    found = cascade.candidate_scores(hu, everywhere, heart)
    scores["box in place of silhouette"] = coronary(decide(everywhere, found))
    return scores


def _fixed(network: ConvLSTMSegmenter, attention: float) -> Callable[[Tensor, Tensor], Tensor]:
    def fuse(single: Tensor, sequence: Tensor) -> Tensor:
        scores: Tensor = network.sequence_head(sequence)
        return attention * scores + (1 - attention) * single

    return fuse


if __name__ == "__main__":
    main()
