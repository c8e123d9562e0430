"""Training as a lab runs it: samples from a table, one network at a time, weights to ship."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cac_core.dicom.annotation import LabelMapping, combine, read_annotation, read_mapping
from cac_core.dicom.volume import read_volume
from cac_core.errors import StudyError, TrainingDataError, UsageError
from cac_core.model.weights import (
    WeightsManifest,
    add_class_bias,
    average_weights,
    initialise_from,
    load_network,
    require_plain_name,
    save_weights,
    verify_weights,
)
from cac_core.processes import worker_pool
from cac_core.progress import Progress
from cac_core.training.comparison_networks import build_network
from cac_core.training.loop import (
    CALCIUM_SETTINGS,
    HEART_SETTINGS,
    TrainingSettings,
    load_trained,
    train_network,
    use_threads,
)
from cac_core.training.offset import calibrate
from cac_core.training.samples import SampleFiles, make_sample, save_sample
from cac_core.training.synthetic import generator_digest, host_of, is_made, make_annotated
from cac_core.training.table import read_training_table, rows_of, split_digest

_MOST_HEARTS = 9
Kind = Literal["heart", "calcium"]


def prepare_samples(
    rows: Sequence[dict[str, str]],
    folder: Path,
    base: Path,
    mapping: LabelMapping | None,
    progress: Progress,
    data: Path | None = None,
) -> SampleFiles:
    """Make the sample of each row of a training table that is not there yet.

    Parameters
    ----------
    folder : where samples are kept, a file each; those made before are used again.
    base : folder that relative paths of the table begin at.
    data : folder of the real chests, for implanted studies.

    Raises
    ------
    TrainingDataError
        Naming study and file, at the first row that is not usable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{_sample_name(row, base, mapping)}.safetensors" for row in rows]
    missing = [n for n, path in enumerate(paths) if not path.exists()]
    if not missing:
        return SampleFiles(paths)
    progress.say(f"making {len(missing)} training samples in {folder}")
    with progress.counting("samples") as report, worker_pool(len(missing)) as pool:
        work = pool.map(
            _make_sample,
            [rows[n] for n in missing],
            [paths[n] for n in missing],
            [base] * len(missing),
            [mapping] * len(missing),
            [data] * len(missing),
        )
        for done, _ in enumerate(work, start=1):
            if report:
                report(done, len(missing))
    return SampleFiles(paths)


def _sample_name(row: dict[str, str], base: Path, mapping: LabelMapping | None) -> str:
    """A readable name, and a digest of all that the sample depends on."""
    parts = [row["study"], row["annotation"], row["reader"]]
    if is_made(row["study"]):
        parts.append(generator_digest())
    else:
        for path in [base / row["study"], *_annotation_paths(row, base)]:
            try:
                status = path.stat()
            except OSError as error:
                raise TrainingDataError(
                    f"Study {row['study']}: {path} cannot be read ({error.strerror}).",
                    "Correct the training table.",
                ) from None
            parts.append(f"{status.st_size}:{status.st_mtime_ns}")
        parts.append(str(sorted(map(str, mapping.meaning.items())) if mapping else ""))
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]
    readable = "".join(c if c.isalnum() else "-" for c in Path(row["study"]).name)
    return f"{readable}-{row['reader']}-{digest}"


def _annotation_paths(row: dict[str, str], base: Path) -> list[Path]:
    return [base / part.strip() for part in row["annotation"].split(";")]


def _make_sample(
    row: dict[str, str], path: Path, base: Path, mapping: LabelMapping | None, data: Path | None
) -> None:
    use_threads(1)
    try:
        hu, heart, calcium, spacing = _annotated(row, base, mapping, data)
        save_sample(path, make_sample(hu, heart, calcium, spacing))
    except (StudyError, ValueError) as error:
        raise TrainingDataError(
            f"Study {row['study']} cannot be used: {error}.",
            "Correct its files, or take it out of the training table.",
        ) from None
    except TrainingDataError as error:
        raise TrainingDataError(f"Study {row['study']}: {error.what}", error.hint) from None


def _annotated(
    row: dict[str, str], base: Path, mapping: LabelMapping | None, data: Path | None
) -> tuple[Any, ...]:
    """HU, heart, calcium class and spacing of an annotated study."""
    if is_made(row["study"]):
        scan, calcium = make_annotated(row["study"], row["annotation"], data)
        return scan.hu, scan.heart_mask, calcium, scan.spacing_mm
    if mapping is None:
        raise TrainingDataError(
            f"{row['annotation']} needs a label mapping.", "Name one with --mapping labels.toml."
        )
    volume = read_volume([p for p in sorted((base / row["study"]).rglob("*")) if p.is_file()])
    found = combine(
        [
            read_annotation(path, mapping, volume.affine, volume.hu.shape)
            for path in _annotation_paths(row, base)
        ]
    )
    if not found.heart.any():
        raise TrainingDataError(
            f"{row['annotation']} holds no heart.",
            "Add a file with the heart's silhouette, separated by `;`, and map its label.",
        )
    return volume.hu, found.heart, found.calcium, volume.spacing_mm


def train(
    kind: Kind,
    table_path: Path,
    out: Path,
    progress: Progress,
    *,
    mapping_path: Path | None = None,
    samples: Path | None = None,
    readers: Sequence[str] = (),
    network: str = "convlstm",
    settings: TrainingSettings | None = None,
    begin: Path | None = None,
    begin_heart: int = 1,
    data: Path | None = None,
) -> dict[str, Any]:
    """Train one network on the table's training part, judged on its validation part.

    Parameters
    ----------
    begin : folder of weights whose network of this kind is trained further; default: a new one.
    begin_heart : which of the heart networks in `begin`, from 1.
    out : folder of the run; the same command goes on where a killed run stopped.
    samples : folder of samples; default: `samples` beside the table.
    network : one of `cac_core.training.comparison_networks.NETWORKS`.
    data : folder of the real chests, for implanted studies.
    """
    if begin_heart > 1 and (kind == "calcium" or begin is None):
        raise UsageError(
            "--begin-heart says which of several hearts in --begin is trained further.",
            "Name the weights with --begin, or leave it out.",
        )
    earlier = verify_weights(begin) if begin else None
    begun_network = _network_of(earlier, kind, begin_heart) if earlier else ""
    table = read_training_table(table_path)
    mapping = read_mapping(mapping_path) if mapping_path else None
    folder = samples or table_path.parent / "samples"
    chosen = [rows_of(table, part, readers) for part in ("training", "validation")]
    parts = [
        prepare_samples(rows, folder, table_path.parent, mapping, progress, data) for rows in chosen
    ]
    settings = settings or (HEART_SETTINGS if kind == "heart" else CALCIUM_SETTINGS)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    use_threads(max(1, int(asked)) if asked.isdecimal() else len(os.sched_getaffinity(0)))
    progress.say(
        f"{kind}: {network}, {len(parts[0].names)} samples to learn from, "
        f"{len(parts[1].names)} to validate with, {settings.steps} steps"
    )
    record = train_network(
        kind,
        _first_network(network, kind, settings.seed, earlier, begun_network),
        parts[0],
        parts[1],
        settings,
        out,
        data={
            "table": table_path.name,
            "split_digest": split_digest(table),
            "readers": sorted(readers) or sorted(set(table["reader"].to_pylist())),
            "network": network,
            "begun_from": earlier and earlier.model_id,
            "begun_from_network": begun_network or None,
            # What was learnt from a chest is kept by whoever goes on from these weights.
            "hosts": sorted({*_hosts(chosen[0] + chosen[1]), *(earlier.hosts if earlier else ())}),
        },
        progress=lambda step, steps, loss, held: progress.say(
            f"{kind}: step {step}/{steps}, loss {loss:.4f}, validation {held:.4f}"
        ),
    )
    return record | {"run": str(out)}


def _hosts(rows: Sequence[dict[str, str]]) -> list[str]:
    """The real chests that rows of a training table were made from."""
    return sorted({host for row in rows if (host := host_of(row["study"]))})


def _network_of(weights: WeightsManifest, kind: Kind, heart: int) -> str:
    """Name of the network of that kind in the weights; of several hearts the one of that number."""
    if kind == "calcium":
        return kind
    if heart > len(weights.hearts):
        raise UsageError(
            f"{weights.model_id} has {len(weights.hearts)} heart networks, none of number {heart}.",
            "Name one of them with --begin-heart.",
        )
    return weights.hearts[heart - 1]


def _first_network(
    name: str, kind: Kind, seed: int, earlier: WeightsManifest | None, begun_network: str
) -> Any:
    """A new network; with `earlier`, one that knows what that network of those weights knows."""
    network = build_network(name, kind, seed)
    if earlier and not initialise_from(network, load_network(earlier, begun_network)):
        raise UsageError(
            f"The {begun_network} network in {earlier.folder} is no smaller version of {name}.",
            "Name weights of the same network, or begin anew.",
        )
    return network


def ship(
    heart_runs: Sequence[Path],
    calcium_run: Path,
    table_path: Path,
    out: Path,
    progress: Progress,
    *,
    mapping_path: Path | None = None,
    samples: Path | None = None,
    favour_coronary: float = 0.0,
    mean_with: Path | None = None,
    name: str = "convlstm",
    version: str = "own",
    data: Path | None = None,
) -> dict[str, Any]:
    """Put trained networks together: calibrate on the validation part, write the weights.

    Parameters
    ----------
    heart_runs : runs of heart networks, one or more; the mean of their probabilities counts.
    favour_coronary : added to the score of the coronary class before the calibration.
    mean_with : folder of weights that the calcium network began from. The mean of both is shipped,
        parameter by parameter: it keeps much of what either knows (Wortsman et al., Robust
        fine-tuning of zero-shot models, CVPR 2022).

    Raises
    ------
    UsageError
        If `out` exists already, or the network did not begin from `mean_with`.
    WeightsError
        If the version cannot be part of a model id.
    """
    if len(heart_runs) > _MOST_HEARTS:
        raise UsageError(
            f"{len(heart_runs)} heart networks are too many.", f"Name at most {_MOST_HEARTS}."
        )
    if out.exists():
        raise UsageError(f"{out} exists already.", "Remove it, or name another folder.")
    require_plain_name(version, "version")
    training: dict[str, Any] = {}
    networks = {}
    runs = {f"heart-{n}": run for n, run in enumerate(heart_runs, start=1)}
    runs = {"heart": runs.pop("heart-1"), **runs, "calcium": calcium_run}
    for item, run in runs.items():
        network: Any = build_network("convlstm", "calcium" if item == "calcium" else "heart", 0)
        training[item] = load_trained(run, network)
        networks[item] = network
    if mean_with is not None:
        earlier = verify_weights(mean_with)
        before = load_network(earlier, "calcium")
        begun_from = training["calcium"].get("data", {}).get("begun_from")
        if begun_from != earlier.model_id or before.config != networks["calcium"].config:
            raise UsageError(
                f"The calcium network in {calcium_run} is not {earlier.model_id}, trained further.",
                "Name the weights that its training began from; it may not be wider or deeper.",
            )
        average_weights(networks["calcium"], before)
        training["calcium"]["mean_with"] = earlier.model_id
    add_class_bias(networks["calcium"], 1, favour_coronary)
    table = read_training_table(table_path)
    mapping = read_mapping(mapping_path) if mapping_path else None
    rows = rows_of(table, "validation")
    held_out = prepare_samples(
        rows,
        samples or table_path.parent / "samples",
        table_path.parent,
        mapping,
        progress,
        data,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder,
        worker_pool(len(held_out.paths)) as pool,
    ):
        uncalibrated = Path(folder)
        save_weights(uncalibrated, networks, name=name, version=version, training=training)
        training["calibration"] = calibrate(uncalibrated, held_out, pool, progress)
    training["calibration"]["coronary_offset"] = favour_coronary
    training["calibration"]["split_digest"] = split_digest(table)
    training["calibration"]["data"] = {"hosts": _hosts(rows)}
    add_class_bias(networks["calcium"], 0, training["calibration"]["background_offset"])
    manifest = save_weights(out, networks, name=name, version=version, training=training)
    return {"weights": str(out), "model": manifest.model_id, "training": training}
