"""Agreement of scores with the known truth of synthetic scans."""

from __future__ import annotations

import multiprocessing
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cac_core.cohort.store import Warehouse
from cac_core.errors import CacError
from cac_core.keys import load_keyring
from cac_core.model.cascade import Cascade
from cac_core.model.weights import verify_weights
from cac_core.phantom.scan import synthesise_scan
from cac_core.phantom.truth import true_agatston, true_category
from cac_core.protocol import ScoringProtocol
from cac_core.scoring.agatston import score_calcium
from cac_core.scoring.lesions import label_lesions
from cac_core.stats.agreement import concordance, weighted_kappa
from flows.progress import RunProgress
from schemas.codes import CAC_CATEGORIES
from schemas.score import SCORES


def agreement(model: Sequence[float], truth: Sequence[float]) -> dict[str, Any]:
    """Category and score agreement of paired Agatston scores, ready for print or JSON."""
    matrix = concordance(
        [true_category(value) for value in truth],
        [true_category(value) for value in model],
        CAC_CATEGORIES,
    )
    kappa = weighted_kappa(matrix)
    logs = np.log1p(np.asarray(model)), np.log1p(np.asarray(truth))
    spread = min(float(part.std()) for part in logs) if len(model) else 0.0
    r2 = float(np.corrcoef(*logs)[0, 1] ** 2) if spread > 0 else None
    return {
        "n": len(model),
        "categories": list(CAC_CATEGORIES),
        "concordance_truth_by_model": matrix.tolist(),
        "kappa_linear": _number(kappa.value),
        "kappa_ci": [_number(kappa.ci_low), _number(kappa.ci_high)],
        "same_category": float(np.trace(matrix) / max(1, len(model))),
        "r2_log": r2,
        "truth_zero": int(matrix[0].sum()),
        "truth_zero_scored_zero": int(matrix[0, 0]),
        "truth_above_100": int(matrix[2:].sum()),
        "truth_above_100_scored_above_0": int(matrix[2:, 1:].sum()),
    }


def compare_with_truth(warehouse: str, truth_path: Path) -> dict[str, Any]:
    """Compare the newest model's published scores with the truth table of a synthetic archive.

    Raises
    ------
    CacError
        If the truth cannot be read or no scored study is in it.
    """
    try:
        truth = pq.read_table(truth_path).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise CacError(
            f"The truth table {truth_path} cannot be read ({type(error).__name__}).",
            "It is written beside a synthetic archive by `cac phantom` and `cac demo`.",
        ) from None
    keyring = load_keyring()
    by_key = {keyring.study_key(row["study_instance_uid"]): row for row in truth}
    store = Warehouse(warehouse)
    rows = [row for model in store.models() for row in store.read(SCORES, model).to_pylist()]
    scored = [row for row in rows if row["status"] == "scored" and row["study_key"] in by_key]
    if not scored:
        raise CacError(
            f"No scored study of {warehouse} is in {truth_path}.",
            "Score the archive that the truth belongs to, under the same linkage secret.",
        )
    result = agreement(
        [row["agatston"] for row in scored],
        [by_key[row["study_key"]]["agatston"] for row in scored],
    )
    planted = {key: row["planted_defect"] for key, row in by_key.items() if row["planted_defect"]}
    reasons = {row["study_key"]: row["reason"] for row in rows}
    result["defects_planted"] = len(planted)
    result["defects_found"] = sum(reasons.get(key) == defect for key, defect in planted.items())
    result["seconds_per_study_median"] = statistics.median(
        row["seconds_read"] + row["seconds_model"] + row["seconds_score"] for row in scored
    )
    return result


def evaluate_unseen(
    studies: int, seed: int, model: Path | None, progress: RunProgress
) -> dict[str, Any]:
    """Score `studies` synthetic scans that no training saw, in memory, and compare."""
    weights = verify_weights(model)
    workers = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    rows: dict[int, dict[str, float]] = {}
    with (
        progress.counting("scans evaluated") as report,
        ProcessPoolExecutor(workers, mp_context=context) as pool,
    ):
        futures = {
            pool.submit(_evaluate_scan, number, str(weights.folder)): number
            for number in range(seed, seed + studies)
        }
        for future in as_completed(futures):
            rows[futures[future]] = future.result()
            if report:
                report(len(rows), studies)
    ordered = [rows[number] for number in sorted(rows)]
    result = agreement([row["model"] for row in ordered], [row["truth"] for row in ordered])
    dice = [row["heart_dice"] for row in ordered]
    return result | {
        "model_id": weights.model_id,
        "seeds": [seed, seed + studies - 1],
        "heart_dice_mean": statistics.fmean(dice),
        "heart_dice_minimum": min(dice),
        "seconds_per_study_median": statistics.median(row["seconds"] for row in ordered),
        "scores": [{key: round(row[key], 2) for key in ("truth", "model")} for row in ordered],
    }


_CASCADES: dict[str, Cascade] = {}


def _evaluate_scan(seed: int, folder: str) -> dict[str, float]:
    """Score one synthetic scan; the cascade is loaded once per process."""
    if folder not in _CASCADES:
        _CASCADES[folder] = Cascade.load(Path(folder), threads=1)
    scan, protocol = synthesise_scan(seed), ScoringProtocol()
    start = perf_counter()
    found = _CASCADES[folder].segment(scan.hu, scan.spacing_mm)
    lesions = label_lesions(
        scan.hu, found.calcium_class, found.heart_mask, scan.spacing_mm, protocol
    )
    agatston = score_calcium(lesions, protocol).agatston
    seconds = perf_counter() - start
    both = float((found.heart_mask & scan.heart_mask).sum())
    coronary = (scan.calcium_class == 1) & scan.heart_mask
    return {
        "model": agatston,
        "truth": true_agatston(scan.hu, coronary, scan.spacing_mm),
        "heart_dice": 2 * both / float(found.heart_mask.sum() + scan.heart_mask.sum()),
        "seconds": seconds,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
