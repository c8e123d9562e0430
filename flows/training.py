"""Training of the cascade on synthetic scans: samples, both networks, calibration, weights."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cac_core.errors import UsageError
from cac_core.model.cascade import Cascade
from cac_core.model.convlstm import ConvLSTMSegmenter, NetworkConfig
from cac_core.model.preprocess import candidates
from cac_core.model.training.loop import (
    TrainingSettings,
    favour_background,
    train_network,
    use_threads,
)
from cac_core.model.training.samples import load_samples, make_sample, save_sample
from cac_core.model.weights import save_weights
from cac_core.phantom.scan import synthesise_scan
from cac_core.phantom.truth import true_agatston
from cac_core.protocol import ScoringProtocol
from cac_core.scoring.agatston import score_calcium
from cac_core.scoring.lesions import label_lesions
from flows.evaluation import agreement
from flows.progress import RunProgress

#: Seeds of training scans begin here; demo and evaluation never reach them.
TRAINING_SEED = 100_000
#: Offsets in favour of background that the calibration tries.
OFFSETS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5)


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How much to train; the defaults are those of the shipped weights."""

    scans: int = 160
    calibration_scans: int = 60
    heart_steps: int = 2400
    calcium_steps: int = 5000
    version: str = "own"


def train_cascade(out: Path, plan: TrainingPlan, progress: RunProgress) -> dict[str, Any]:
    """Train both networks and write `out`/weights; samples made before are used again.

    Raises
    ------
    UsageError
        If `out`/weights holds weights already.
    """
    folder = out / "weights"
    if folder.exists():
        raise UsageError(f"{folder} exists already.", "Remove it, or name another folder.")
    seeds = range(TRAINING_SEED, TRAINING_SEED + plan.scans)
    _make_samples(out / "samples", seeds, progress)
    samples = load_samples(out / "samples")[: plan.scans]
    use_threads(len(os.sched_getaffinity(0)))
    networks: dict[str, ConvLSTMSegmenter] = {}
    training: dict[str, Any] = {"data": _named(seeds)}
    for kind, classes, steps in (
        ("heart", 2, plan.heart_steps),
        ("calcium", 3, plan.calcium_steps),
    ):
        networks[kind], record = train_network(
            kind,
            samples,
            NetworkConfig(n_classes=classes),
            TrainingSettings(steps=steps),
            lambda step, steps, loss, kind=kind: progress.say(  # type: ignore[misc]
                f"{kind}: step {step}/{steps}, loss {loss:.4f}"
            ),
        )
        training[kind] = {
            **{name: record[name] for name in ("samples", "settings", "seconds")},
            "final_loss": record["loss"][-1][1],
        }
    uncalibrated = save_weights(
        out / "uncalibrated", networks, name="convlstm", version=plan.version, training=training
    )
    held_out = range(seeds.stop, seeds.stop + plan.calibration_scans)
    training["calibration"] = _calibrate(uncalibrated.folder, held_out, progress)
    favour_background(networks["calcium"], training["calibration"]["background_offset"])
    manifest = save_weights(
        folder, networks, name="convlstm", version=plan.version, training=training
    )
    return {"weights": str(folder), "model": manifest.model_id, "training": training}


def _make_samples(folder: Path, seeds: Sequence[int], progress: RunProgress) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if not (folder / f"{seed}.npz").exists()]
    progress.say(f"making {len(missing)} training samples in {folder}")
    with progress.counting("samples") as report, _pool() as pool:
        paths = [folder / f"{seed}.npz" for seed in missing]
        for done, _ in enumerate(pool.map(_make_one, missing, paths), start=1):
            if report:
                report(done, len(missing))


def _make_one(seed: int, path: Path) -> None:
    use_threads(1)
    scan = synthesise_scan(seed)
    aside = path.with_suffix(".part")
    save_sample(aside, make_sample(scan.hu, scan.heart_mask, scan.calcium_class, scan.spacing_mm))
    aside.rename(path)


def _calibrate(folder: Path, seeds: Sequence[int], progress: RunProgress) -> dict[str, Any]:
    """Choose the offset with the best kappa on scans that no training saw; the least of equals."""
    progress.say(f"calibrating on {len(seeds)} held-out scans")
    with progress.counting("scans") as report, _pool() as pool:
        rows = []
        for row in pool.map(_scores_by_offset, seeds, [folder] * len(seeds)):
            rows.append(row)
            if report:
                report(len(rows), len(seeds))
    truth = [row[0] for row in rows]
    kappas = [
        agreement([row[1][i] for row in rows], truth)["kappa_linear"] or 0.0
        for i in range(len(OFFSETS))
    ]
    best = int(np.argmax(np.round(kappas, 3)))
    return {
        "background_offset": OFFSETS[best],
        "data": _named(seeds),
        "kappa_linear": round(kappas[best], 3),
    }


def _scores_by_offset(seed: int, folder: Path) -> tuple[float, list[float]]:
    """True score of a scan, and its score under each offset."""
    cascade, scan, protocol = (
        Cascade.load(folder, threads=1),
        synthesise_scan(seed),
        ScoringProtocol(),
    )
    heart = cascade.segment_heart(scan.hu, scan.spacing_mm)
    possible = candidates(
        scan.hu,
        heart,
        scan.spacing_mm,
        threshold_hu=protocol.threshold_hu,
        min_area_mm2=protocol.min_area_mm2,
        connectivity=protocol.connectivity,
    )
    scores = []
    for step in np.diff(OFFSETS, prepend=0.0):
        favour_background(cascade.calcium, float(step))
        classes = cascade.classify(scan.hu, possible)
        lesions = label_lesions(scan.hu, classes, heart, scan.spacing_mm, protocol)
        scores.append(score_calcium(lesions, protocol).agatston)
    coronary = (scan.calcium_class == 1) & scan.heart_mask
    return true_agatston(scan.hu, coronary, scan.spacing_mm), scores


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        len(os.sched_getaffinity(0)), mp_context=multiprocessing.get_context("spawn")
    )


def _named(seeds: Sequence[int]) -> str:
    return f"synthetic CTAC scans, seeds {seeds[0]} to {seeds[-1]}"
