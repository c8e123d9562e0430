"""Networks trained identically and compared: ours, its ablations, a U-Net, no network.

    python -m bench.bench_trained TABLE --out FOLDER [--samples FOLDER] [--steps 1000]
        [--heart-steps 1000] [--networks convlstm,unet] [--studies 60] [--data REAL_CHESTS]
        [--keep FOLDER] [--no-training]

Every network starts from random weights and takes the same number of steps on the same batches:
`cac train heart` and `cac train calcium --network NAME` into FOLDER/heart-NAME and
FOLDER/calcium-NAME. Existing runs are resumed or reused, so that several processes or machines can
share the training. No network is calibrated. They are evaluated on the first studies of the three
frozen test sets; without --data the set in real chests is left out. Prints the rows and writes them
with all scores to FOLDER/trained.json. Speed and memory do not depend on training, see
`bench.bench_networks`. Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from cac_core.categories import cac_category
from cac_core.evaluation.agreement import agreement
from cac_core.evaluation.lesion_errors import dice
from cac_core.model.cascade import Cascade
from cac_core.model.preprocess import candidates
from cac_core.model.weights import verify_weights
from cac_core.phantom.heldout.frozen_sets import TEST_SETS, kept_case
from cac_core.phantom.truth import true_agatston
from cac_core.processes import worker_pool
from cac_core.stats.agreement import weighted_kappa
from cac_core.stats.bootstrap import percentile_interval, resampled
from cac_core.training.comparison_networks import build_network
from cac_core.training.loop import load_trained, use_threads
from cac_core.training.records import Kind
from cac_core.training.sample_store import TrainingData
from cac_core.training.settings import CALCIUM_SETTINGS, HEART_SETTINGS
from cac_core.training.train import train
from flows.runtime.progress import RunProgress
from schemas.codes import CAC_CATEGORIES

_OURS = "convlstm"
NETWORKS = (_OURS, "single", "sequence", "mean", "placeless", "unet")
#: Networks that replace both stages; the others are ablations of the calcium network.
_BOTH = (_OURS, "unet")
_NO_SILHOUETTE, _NO_NETWORK = f"{_OURS}, no silhouette", "threshold alone"
_RESAMPLES = 2000


def main() -> None:
    """Train missing networks, evaluate all, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--heart-steps", type=int, default=1000)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--studies", type=int, default=60)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--no-training", action="store_true")
    options = parser.parse_args()
    names = options.networks.split(",")
    if _OURS not in names:
        parser.error(f"--networks must hold {_OURS}: the others are compared with it")
    runs: list[tuple[Kind, str]] = [("heart", name) for name in names if name in _BOTH]
    runs += [("calcium", name) for name in names]
    if not options.no_training:
        for kind, name in runs:
            _train(kind, name, options)
    cases = [
        (name, number)
        for name, (count, _) in TEST_SETS.items()
        if name != "semi-synthetic" or options.data
        for number in range(min(count, options.studies))
    ]
    keep = options.keep or options.out / "sets"
    with worker_pool(len(cases)) as pool:
        shared = (repeat(names), repeat(options.out), repeat(options.data), repeat(keep))
        studies = []
        for study in pool.map(_evaluate, cases, *shared):
            studies.append(study)
            print(f"{len(studies)} of {len(cases)} studies", end="\r", flush=True)
    records = {f"{kind}-{name}": _record(options.out, kind, name) for kind, name in runs}
    rows = _rows(studies, records)
    _print(rows)
    content = {"rows": rows, "runs": records, "studies": studies}
    (options.out / "trained.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _train(kind: Kind, name: str, options: argparse.Namespace) -> None:
    settings = (
        dataclasses.replace(HEART_SETTINGS, steps=options.heart_steps)
        if kind == "heart"
        else dataclasses.replace(CALCIUM_SETTINGS, steps=options.steps)
    )
    train(
        kind,
        TrainingData(options.table, samples=options.samples),
        options.out / f"{kind}-{name}",
        RunProgress(Console(stderr=True)),
        network=name,
        settings=settings,
    )


def _record(out: Path, kind: Kind, name: str) -> dict[str, Any]:
    record = load_trained(out / f"{kind}-{name}", build_network(name, kind, 0))
    wanted = ("parameters", "steps_done", "best_step", "best_validation_loss", "seconds")
    return {key: record[key] for key in wanted}


@lru_cache(maxsize=1)
def _cascades(names: tuple[str, ...], out: Path) -> dict[str, Cascade]:
    use_threads(1)

    def trained(kind: Kind, name: str) -> Any:
        network = build_network(name, kind, 0)
        load_trained(out / f"{kind}-{name}", network)
        return network.requires_grad_(False)

    hearts = {name: trained("heart", name) for name in names if name in _BOTH}
    return {
        name: Cascade(verify_weights(), [hearts.get(name, hearts[_OURS])], trained("calcium", name))
        for name in names
    }


def _evaluate(
    case: tuple[str, int], names: list[str], out: Path, data: Path | None, keep: Path
) -> dict[str, Any]:
    """True score of a study, and per row: score, false-positive volume, Dice of the heart."""
    scan = kept_case(*case, data, keep)
    hu, spacing = scan.hu, scan.spacing_mm
    coronary = (scan.calcium_class == 1) & scan.heart_mask
    found: dict[str, dict[str, float]] = {}

    def add_row(row: str, heart: NDArray[np.bool_], calcium: NDArray[np.bool_]) -> None:
        found[row] = {
            "agatston": true_agatston(hu, calcium, spacing),
            "false_mm3": float((calcium & ~coronary).sum() * np.prod(spacing)),
            "dice": dice(heart, scan.heart_mask),
        }

    def possible_in(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return candidates(hu, mask, spacing, threshold_hu=130, min_area_mm2=1.0, connectivity=8)

    cascades = _cascades(tuple(names), out)
    for name, cascade in cascades.items():
        whole = cascade.segment(hu, spacing)
        add_row(name, whole.heart_mask, whole.calcium_class == 1)
    heart = cascades[_OURS].segment_heart(hu, spacing)
    add_row(_NO_NETWORK, heart, possible_in(heart))
    anywhere = cascades[_OURS].classify(hu, possible_in(_box(heart)), heart)
    add_row(_NO_SILHOUETTE, heart, anywhere == 1)
    return {
        "set": case[0],
        "number": case[1],
        "truth": true_agatston(hu, coronary, spacing),
        "found": found,
    }


def _box(heart: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Bounding box of a heart mask, to measure what its outline is worth."""
    box = np.zeros_like(heart)
    if heart.any():
        box[tuple(slice(at.min(), at.max() + 1) for at in np.nonzero(heart))] = True
    return box


def _rows(
    studies: list[dict[str, Any]], records: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Agreement of every row per set, and its difference in kappa to ours over all sets."""
    rows: dict[str, dict[str, Any]] = {}
    for row in studies[0]["found"]:
        rows[row] = {
            "difference": _difference(studies, row),
            "calcium": records.get(f"calcium-{row}"),
            "heart": records.get(f"heart-{row}"),
        }
        for name in dict.fromkeys(study["set"] for study in studies):
            part = [study for study in studies if study["set"] == name]
            found = [study["found"][row] for study in part]
            rows[row][name] = {
                **agreement([f["agatston"] for f in found], [study["truth"] for study in part]),
                "studies": len(part),
                "false_mm3": float(np.mean([f["false_mm3"] for f in found])),
                "dice": float(np.mean([f["dice"] for f in found])),
                "dice_least": min(f["dice"] for f in found),
            }
    return rows


def _difference(studies: list[dict[str, Any]], row: str) -> list[float | None]:
    """Mean over the sets of kappa of the row minus kappa of ours, and its 95 % interval.

    Paired bootstrap over the studies of each set. None where kappa is undefined.
    """
    sets = [
        np.array(
            [
                [_category(study["truth"])]
                + [_category(study["found"][name]["agatston"]) for name in (row, _OURS)]
                for study in studies
                if study["set"] == name_of_set
            ]
        )
        for name_of_set in dict.fromkeys(study["set"] for study in studies)
    ]

    def kappa(truth: NDArray[np.int64], found: NDArray[np.int64]) -> float:
        matrix = np.zeros((len(CAC_CATEGORIES),) * 2, np.int64)
        np.add.at(matrix, (truth, found), 1)
        return weighted_kappa(matrix).value

    def difference(parts: list[NDArray[np.int64]]) -> float:
        apart = [kappa(part[:, 0], part[:, 1]) - kappa(part[:, 0], part[:, 2]) for part in parts]
        return float(np.mean(apart))

    drawn = [
        difference([part[resampled(len(part), seed, number)] for seed, part in enumerate(sets)])
        for number in range(_RESAMPLES)
    ]
    low, high, _ = percentile_interval(np.array(drawn))
    return [None if np.isnan(value) else value for value in (difference(sets), low, high)]


def _category(agatston: float) -> int:
    return CAC_CATEGORIES.index(str(cac_category(agatston)))


def _print(rows: dict[str, dict[str, Any]]) -> None:
    for row, values in rows.items():
        apart, low, high = (_shown(value, "+") for value in values["difference"])
        print(f"{row}: kappa {apart} ({low} to {high}) against {_OURS}")
        for part in ("heart", "calcium"):
            if values[part]:
                print(
                    f"  {part}: {values[part]['parameters']:,} parameters, validation loss "
                    f"{values[part]['best_validation_loss']:.5f} after "
                    f"{values[part]['best_step']} of {values[part]['steps_done']} steps, "
                    f"{values[part]['seconds']:.0f} s"
                )
        for name in TEST_SETS:
            if name in values:
                found = values[name]
                print(
                    f"  {name:16} kappa {_shown(found['kappa_linear'])}  "
                    f"r2 {_shown(found['r2_log'])}  "
                    f"true 0 below 1: {found['reference_zero_scored_zero']} of "
                    f"{found['reference_zero']}  false {found['false_mm3']:.1f} mm3  "
                    f"Dice {found['dice']:.3f}, least {found['dice_least']:.3f}"
                )


def _shown(value: float | None, sign: str = "-") -> str:
    return "not defined" if value is None else f"{value:{sign}.3f}"


if __name__ == "__main__":
    main()
