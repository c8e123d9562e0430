"""Parameters, memory and CPU seconds of networks, per scan and per training step.

    python -m bench.bench_networks [--scans 4] [--steps 4] [--networks convlstm,unet,published]

Each network replaces both networks of the cascade, with random weights (speed does not depend on
them; `cac evaluate` measures agreement). The calcium network runs on the same candidate windows of
the same scans for all networks, in the true heart, with one thread. Each measurement runs in a
separate process; memory is the peak above that before the network was built. Seconds are processor
time, which is independent of the load of the machine. Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from bench.measure import record
from cac_core.model.cascade import Cascade
from cac_core.model.preprocess import candidates
from cac_core.model.weights import verify_weights
from cac_core.phantom.analytic.acquisition import draw_external_settings
from cac_core.phantom.analytic.scan import synthesise_scan
from cac_core.training.comparison_networks import build_network
from cac_core.training.loop import train_network, use_threads
from cac_core.training.samples import SampleFiles, make_sample, save_sample
from cac_core.training.settings import CALCIUM_SETTINGS

_FIRST_SEED = 7000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--networks", default="convlstm,unet,published")
    options = parser.parse_args()
    names = options.networks.split(",")
    with tempfile.TemporaryDirectory() as folder:
        kept, seed = 0, _FIRST_SEED
        while kept < options.scans:
            kept += _keep_scan(Path(folder), seed)
            seed += 1
        rows = {}
        for name in names:
            rows[name] = _in_own_process(_infer, name, folder) | _in_own_process(
                _train, name, folder, options.steps
            )
    record("networks", [], rows)
    print(
        "network     parameters   s per scan   ratio   MB inference   s per step   ratio   "
        "MB training"
    )
    first = rows[names[0]]
    for name, row in rows.items():
        print(
            f"{name:10} {row['parameters']:11,} {row['scan_s']:12.2f} "
            f"{row['scan_s'] / first['scan_s']:7.1f} {row['inference_mb']:14.0f} "
            f"{row['step_s']:12.2f} {row['step_s'] / first['step_s']:7.1f} "
            f"{row['training_mb']:13.0f}"
        )


def _keep_scan(folder: Path, seed: int) -> bool:
    """Store a scan and its training sample, if it has calcium of both classes."""
    scan = synthesise_scan(seed, draw_external_settings(np.random.default_rng(seed)))
    if not all((scan.calcium_class[scan.heart_mask] == wanted).any() for wanted in (1, 2)):
        return False
    np.savez(
        folder / f"{seed}.npz", hu=scan.hu, heart=scan.heart_mask, spacing=np.array(scan.spacing_mm)
    )
    sample = make_sample(scan.hu, scan.heart_mask, scan.calcium_class, scan.spacing_mm)
    save_sample(folder / f"{seed}.safetensors", sample)
    return True


def _in_own_process(function: Any, *arguments: object) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        result: dict[str, float] = pool.submit(function, *arguments).result()
    return result


def _peak_mb(*, reset: bool = False) -> float:
    """Peak memory of the process since its start or the last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise OSError("no peak memory in /proc/self/status")


def _infer(name: str, folder: str) -> dict[str, float]:
    use_threads(1)
    scans = []
    for path in sorted(Path(folder).glob("*.npz")):
        with np.load(path) as kept:
            step, row, column = (float(v) for v in kept["spacing"])
            scans.append((kept["hu"], kept["heart"], (step, row, column)))
    before = _peak_mb(reset=True)
    heart, calcium = (build_network(name, kind, 1).eval() for kind in ("heart", "calcium"))
    cascade = Cascade(verify_weights(), [heart], calcium)  # type: ignore[arg-type]
    seconds = []
    for hu, mask, spacing in scans:
        possible = candidates(hu, mask, spacing, threshold_hu=130, min_area_mm2=1.0, connectivity=8)
        start = process_time()
        cascade.segment_heart(hu, spacing)
        cascade.classify(hu, possible, mask)
        seconds.append(process_time() - start)
    return {
        "parameters": sum(p.numel() for net in (heart, calcium) for p in net.parameters()),
        "scan_s": statistics.median(seconds),
        "inference_mb": _peak_mb() - before,
    }


def _train(name: str, folder: str, steps: int) -> dict[str, float]:
    use_threads(1)
    samples = SampleFiles(sorted(Path(folder).glob("*.safetensors")))
    for number in range(len(samples.names)):
        samples[number]
    before = _peak_mb(reset=True)
    settings = dataclasses.replace(
        CALCIUM_SETTINGS, steps=steps, validate_every=steps, validation_batches=1
    )
    network = build_network(name, "calcium", 1)
    with tempfile.TemporaryDirectory() as out:
        start = process_time()
        train_network("calcium", network, samples, samples, settings, Path(out))
    return {"step_s": (process_time() - start) / steps, "training_mb": _peak_mb() - before}


if __name__ == "__main__":
    main()
