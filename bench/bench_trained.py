"""Networks trained alike, side by side: ours, ours with parts left out, a U-Net, no network.

    python -m bench.bench_trained TABLE --out FOLDER [--samples FOLDER] [--steps 1000]
        [--heart-steps 1000] [--networks convlstm,unet] [--studies 60] [--data REAL_CHESTS]
        [--keep FOLDER] [--no-training]

Every network begins anew and takes the same number of steps on the same samples, in the order of
the same seed: `cac train heart` and `cac train calcium --network NAME` into FOLDER/heart-NAME and
FOLDER/calcium-NAME. Runs that are there go on or are taken as they are, so that several processes,
or another machine, may share the training. Nothing is calibrated: every row is what its network
says. The rows are judged on the first studies of the three frozen test sets; without --data none
of real chests. Prints a table and writes it as JSON, with every score, to FOLDER/trained.json.
Needs the packages of the extra `train`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from cac_core.model.baseline import Kind, build_network
from cac_core.model.cascade import Cascade
from cac_core.model.decision import decide
from cac_core.model.preprocess import Spacing, candidates
from cac_core.model.training.loop import (
    CALCIUM_SETTINGS,
    HEART_SETTINGS,
    load_trained,
    use_threads,
)
from cac_core.model.weights import verify_weights
from cac_core.phantom.test_sets import TEST_SETS, kept_case
from cac_core.phantom.truth import true_agatston
from cac_core.scoring.categories import cac_category
from cac_core.scoring.comparison import dice
from cac_core.stats.agreement import weighted_kappa
from flows.evaluation import agreement
from flows.progress import RunProgress
from flows.training import train
from schemas.codes import CAC_CATEGORIES

NETWORKS = ("convlstm", "single", "sequence", "mean", "placeless", "unet")
_NO_SILHOUETTE, _NO_NETWORK = "convlstm, no silhouette", "threshold alone"
_RESAMPLES = 2000


def main() -> None:
    """Train what is not trained yet, judge, print and write."""
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
    runs: list[tuple[Kind, str]] = [
        ("heart", name) for name in names if name in ("convlstm", "unet")
    ]
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
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        shared = (repeat(names), repeat(options.out), repeat(options.data), repeat(keep))
        studies = []
        for study in pool.map(_judge, cases, *shared):
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
        options.table,
        options.out / f"{kind}-{name}",
        RunProgress(Console(stderr=True)),
        samples=options.samples,
        network=name,
        settings=settings,
    )


def _record(out: Path, kind: Kind, name: str) -> dict[str, Any]:
    record = load_trained(out / f"{kind}-{name}", build_network(name, kind, 0))
    wanted = ("parameters", "steps_done", "best_step", "best_validation_loss", "seconds")
    return {key: record[key] for key in wanted}


@lru_cache(maxsize=1)
def _cascades(names: tuple[str, ...], out: Path) -> dict[str, Cascade]:
    """The U-Net takes the place of both networks; parts are left out of the calcium network."""
    use_threads(1)

    def trained(kind: Kind, name: str) -> Any:
        network = build_network(name, kind, 0)
        load_trained(out / f"{kind}-{name}", network)
        return network.requires_grad_(False)

    hearts = {name: trained("heart", name) for name in names if name in ("convlstm", "unet")}
    return {
        name: Cascade(
            verify_weights(), hearts.get(name, hearts["convlstm"]), trained("calcium", name)
        )
        for name in names
    }


def _judge(
    case: tuple[str, int], names: list[str], out: Path, data: Path | None, keep: Path
) -> dict[str, Any]:
    """True score of a study, and of each row: score, false calcium, Dice, processor seconds."""
    scan = kept_case(*case, data, keep)
    hu, spacing = scan.hu, scan.spacing_mm
    coronary = (scan.calcium_class == 1) & scan.heart_mask
    found: dict[str, dict[str, float]] = {}

    def note(row: str, heart: NDArray[np.bool_], calcium: NDArray[np.bool_], start: float) -> None:
        found[row] = {
            "agatston": true_agatston(hu, calcium, spacing),
            "false_mm3": float((calcium & ~coronary).sum() * np.prod(spacing)),
            "dice": dice(heart, scan.heart_mask),
            "seconds": process_time() - start,
        }

    for name, cascade in _cascades(tuple(names), out).items():
        start = process_time()
        heart = cascade.segment_heart(hu, spacing)
        possible = _possible(hu, heart, spacing)
        classes = cascade.classify(hu, possible, heart)
        note(name, heart, classes == 1, start)
        if name == "convlstm":
            start = process_time()
            note(_NO_NETWORK, heart, possible, start)
            everywhere = _possible(hu, _box(heart), spacing)
            if everywhere.any():
                found_there = cascade.candidate_scores(hu, everywhere, heart)
                everywhere = decide(everywhere, found_there) == 1
            note(_NO_SILHOUETTE, heart, everywhere, start)
    return {
        "set": case[0],
        "number": case[1],
        "truth": true_agatston(hu, coronary, spacing),
        "found": found,
    }


def _possible(
    hu: NDArray[np.int16], heart: NDArray[np.bool_], spacing: Spacing
) -> NDArray[np.bool_]:
    return candidates(hu, heart, spacing, threshold_hu=130, min_area_mm2=1.0, connectivity=8)


def _box(heart: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The box around a heart: what is left of the mask when its outline is not used."""
    box = np.zeros_like(heart)
    if heart.any():
        box[tuple(slice(at.min(), at.max() + 1) for at in np.nonzero(heart))] = True
    return box


def _rows(
    studies: list[dict[str, Any]], records: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Agreement of every row per set, and its kappa over all sets against that of `convlstm`."""
    rows: dict[str, dict[str, Any]] = {}
    for row in studies[0]["found"]:
        rows[row] = {
            "difference": _difference(studies, row),
            "seconds": float(np.median([study["found"][row]["seconds"] for study in studies])),
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


def _difference(studies: list[dict[str, Any]], row: str) -> list[float]:
    """Mean over the sets of kappa of `convlstm` minus kappa of the row, and its 95 % interval.

    Percentile bootstrap over the studies of each set; both rows are judged on the same ones.
    """
    rng = np.random.default_rng(1)
    sets = [
        np.array(
            [
                [
                    CAC_CATEGORIES.index(str(cac_category(score)))
                    for score in (
                        study["truth"],
                        study["found"]["convlstm"]["agatston"],
                        study["found"][row]["agatston"],
                    )
                ]
                for study in studies
                if study["set"] == name
            ]
        )
        for name in dict.fromkeys(study["set"] for study in studies)
    ]

    def kappa(truth: NDArray[np.int64], found: NDArray[np.int64]) -> float:
        matrix = np.zeros((len(CAC_CATEGORIES),) * 2, np.int64)
        np.add.at(matrix, (truth, found), 1)
        return weighted_kappa(matrix).value

    def apart(parts: list[NDArray[np.int64]]) -> float:
        return float(
            np.mean(
                [kappa(part[:, 0], part[:, 1]) - kappa(part[:, 0], part[:, 2]) for part in parts]
            )
        )

    drawn = [
        apart([part[rng.integers(len(part), size=len(part))] for part in sets])
        for _ in range(_RESAMPLES)
    ]
    return [apart(sets), *(float(v) for v in np.nanquantile(drawn, [0.025, 0.975]))]


def _print(rows: dict[str, dict[str, Any]]) -> None:
    for row, values in rows.items():
        apart, low, high = values["difference"]
        print(
            f"{row}: ours is ahead in kappa by {apart:.3f} ({low:.3f} to {high:.3f}); "
            f"{values['seconds']:.2f} s of processor per study"
        )
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


def _shown(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
