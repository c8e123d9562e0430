"""Training as a deployment: all networks, calibration and export, from one plan file."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from cac_core.training.export import export_weights
from cac_core.training.plan import NetworkPlan, TrainingPlan, read_plan
from cac_core.training.records import ExportResult, Kind
from cac_core.training.train import train
from flows.runtime.progress import current_progress

_SUMMARY = ("training_samples", "steps_done", "best_step", "best_validation_loss", "seconds")


@flow(name="train-networks", persist_result=False, validate_parameters=False)
def train_networks(plan: str) -> ExportResult:
    """Train the networks of a plan, calibrate them and write the weights.

    Resumes a run that was interrupted; never overwrites existing weights.

    Parameters
    ----------
    plan : path of a TOML file, see `cac_core.training.plan` and docs/training.md.

    Returns
    -------
    The model id, the folder of the weights, and the records of all runs.
    """
    planned = read_plan(Path(plan))
    hearts = planned.heart_runs()
    for network, out in zip(planned.hearts, hearts, strict=True):
        _train("heart", network, planned, out)
    _train("calcium", planned.calcium, planned, planned.out / "calcium")
    result = export_weights(
        [planned.kept_hearts] if planned.kept_hearts else hearts,
        planned.out / "calcium",
        planned.data,
        planned.out / "weights",
        current_progress(),
        coronary_bias=planned.coronary_bias,
        mean_with=planned.mean_with,
        version=planned.version,
    )
    _publish(result)
    return result


def _train(kind: Kind, network: NetworkPlan, planned: TrainingPlan, out: Path) -> None:
    train(
        kind,
        planned.data,
        out,
        current_progress(),
        readers=planned.readers,
        settings=network.settings,
        initial=network.initial,
    )


def _publish(result: ExportResult) -> None:
    """Publish the result as an artifact on the pages of Prefect."""
    runs = {name: run for name, run in result["training"].items() if name != "calibration"}
    lines = [
        f"# {result['model']}",
        "",
        f"| | {' | '.join(runs)} |",
        "|---" * (len(runs) + 1) + "|",
    ]
    lines += [
        f"| {name} | {' | '.join(str(run.get(name, '')) for run in runs.values())} |"
        for name in _SUMMARY
    ]
    create_markdown_artifact("\n".join(lines), key="training")
