"""Training as a deployment: both networks and the calibration, from one plan file."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from cac_core.errors import UsageError
from cac_core.training.loop import CALCIUM_SETTINGS, HEART_SETTINGS, TrainingSettings
from cac_core.training.run import ship, train
from flows.runtime.progress import current_progress

_KEYS = {"table", "mapping", "samples", "data", "out", "readers", "name", "heart", "calcium"}


@flow(name="train-networks", persist_result=False, validate_parameters=False)
def train_networks(plan: str) -> dict[str, Any]:
    """Train both networks of a plan, calibrate them and write the weights.

    A run that was killed goes on where it stopped; weights that exist already are not touched.

    Parameters
    ----------
    plan : a TOML file with `table` and `out`, and if wanted `mapping`, `samples`, `data`,
        `readers`, `name`, and tables `heart` and `calcium` with fields of `TrainingSettings`.
        Relative paths begin at the plan.

    Returns
    -------
    The model id, the folder of the weights, and the records of both runs.
    """
    wanted, base = _read(Path(plan))
    out = base / wanted["out"]
    common: dict[str, Any] = {
        "mapping_path": base / wanted["mapping"] if "mapping" in wanted else None,
        "samples": base / wanted["samples"] if "samples" in wanted else None,
        "data": base / wanted["data"] if "data" in wanted else None,
    }
    for kind in ("heart", "calcium"):
        train(
            kind,
            base / wanted["table"],
            out / kind,
            current_progress(),
            readers=wanted.get("readers", ()),
            settings=_settings(kind, wanted),
            **common,
        )
    result = ship(
        [out / "heart"],
        out / "calcium",
        base / wanted["table"],
        out / "weights",
        current_progress(),
        version=wanted.get("name", "own"),
        **common,
    )
    _tell(result)
    return result


def _read(path: Path) -> tuple[dict[str, Any], Path]:
    try:
        wanted = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The training plan {path} cannot be read ({type(error).__name__}).",
            "See docs/training.md for an example.",
        ) from None
    unknown, missing = set(wanted) - _KEYS, {"table", "out"} - set(wanted)
    if unknown or missing:
        raise UsageError(
            f"The training plan {path} has unknown keys ({', '.join(sorted(unknown)) or 'none'}) "
            f"or lacks some ({', '.join(sorted(missing)) or 'none'}).",
            f"It may hold {', '.join(sorted(_KEYS))}.",
        )
    return wanted, path.resolve().parent


def _settings(kind: str, wanted: dict[str, Any]) -> TrainingSettings:
    base = HEART_SETTINGS if kind == "heart" else CALCIUM_SETTINGS
    try:
        return dataclasses.replace(base, **wanted.get(kind, {}))
    except TypeError:
        known = ", ".join(field.name for field in dataclasses.fields(TrainingSettings))
        raise UsageError(
            f"The training plan has an unknown key in [{kind}].", f"There are: {known}."
        ) from None


def _tell(result: dict[str, Any]) -> None:
    """The result as an artifact that Prefect's pages show."""
    lines = [f"# {result['model']}", "", "| | heart | calcium |", "|---|---|---|"]
    runs = [result["training"][kind] for kind in ("heart", "calcium")]
    for name in ("training_samples", "steps_done", "best_step", "best_validation_loss", "seconds"):
        lines.append(f"| {name} | {runs[0][name]} | {runs[1][name]} |")
    create_markdown_artifact("\n".join(lines), key="training")
