"""What a command of `cac train` would do, for `--dry-run`: its checks without its work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cac_core.errors import UsageError
from cac_core.model.weights import verify_weights
from cac_core.training.records import Kind
from cac_core.training.sample_store import TrainingData
from cac_core.training.settings import TrainingSettings
from cac_core.training.table import read_training_table, rows_of, split_digest
from cac_core.training.train import InitialWeights
from flows.runtime.results_folder import require_new
from flows.summaries import PlannedWrites


def preview_training(
    kind: Kind,
    data: TrainingData,
    out: Path,
    readers: Sequence[str],
    settings: TrainingSettings,
    initial: InitialWeights | None,
) -> PlannedWrites:
    """What `cac train heart` or `calcium` would do; writes nothing.

    Raises
    ------
    CacError
        If the table, its split, or the initial weights are unusable.
    """
    facts = {
        "network": kind,
        **_rows(data, ("training", "validation"), readers),
        "steps": settings.steps,
        "samples per step": settings.batch,
        "device": settings.device,
        "begins from": verify_weights(initial.folder).model_id if initial else "random weights",
        "resumes": out.exists(),
    }
    return PlannedWrites([str(_samples(data)), str(out)], facts)


def preview_export(
    heart_runs: Sequence[Path], calcium_run: Path, data: TrainingData, out: Path
) -> PlannedWrites:
    """What `cac train export` would do; writes nothing.

    Raises
    ------
    CacError
        If `out` exists, a run is missing, or the table is unusable.
    """
    require_new(out)
    for run in (*heart_runs, calcium_run):
        if not run.is_dir():
            raise UsageError(f"There is no run in {run}.", "Train it with: cac train heart|calcium")
    facts = {"heart networks": len(heart_runs), **_rows(data, ("validation",))}
    return PlannedWrites([str(_samples(data)), str(out)], facts)


def preview_confidence(model: Path | None, data: TrainingData, out: Path) -> PlannedWrites:
    """What `cac train confidence` would do; writes nothing.

    Raises
    ------
    CacError
        If `out` exists, or table or weights are unusable.
    """
    require_new(out)
    facts = {"model": verify_weights(model).model_id, **_rows(data, ("validation",))}
    return PlannedWrites([str(_samples(data)), str(out)], facts)


def _rows(data: TrainingData, parts: Sequence[str], readers: Sequence[str] = ()) -> dict[str, Any]:
    """Studies of each part, and the digest of the split."""
    table = read_training_table(data.table)
    counts = {f"{part} studies": len(rows_of(table, part, readers)) for part in parts}
    return {**counts, "split digest": split_digest(table)}


def _samples(data: TrainingData) -> Path:
    return data.samples or data.table.parent / "samples"
