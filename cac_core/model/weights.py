"""Weights on disk: one safetensors file per network and a manifest.

The manifest states architecture, layers, training data, version and the SHA-256 of each file, and
the parameters of the confidence of a score (docs/scoring.md). Files that do not match their
checksum are refused; nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cac_core.errors import WeightsError
from cac_core.model.layer_table import module_layers

if TYPE_CHECKING:
    from torch import nn

    from cac_core.model.convlstm import ConvLSTMSegmenter

#: The shipped weights.
SHIPPED_WEIGHTS = Path(__file__).parent / "weights"
MANIFEST = "manifest.json"
NETWORKS = ("heart", "calcium")
#: Further heart networks are `heart-2` to `heart-9`; their probabilities are averaged.
_FURTHER = re.compile(r"heart-[2-9]")
#: Name and version are part of a warehouse folder, `model=<name>-<version>-<digest>`.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", re.ASCII)
#: An entry of every configuration that no field states; the model digest covers it.
_FIXED_CONFIG = {"branches": "both"}
#: A row of the layer table in the indented manifest, to be written on one line.
_LAYER_ROW = re.compile(r'\{\s*"part":[^{}]*\}')
#: What a model id looks like.
_MODEL_ID = re.compile(r"[A-Za-z0-9._-]+-[0-9a-f]{8}")
_HINT = "Install the package again, or name a complete folder with --model."


@dataclass(frozen=True)
class WeightsManifest:
    """A verified folder of weights.

    `confidence` are the parameters of `cac_core.scoring.confidence.ConfidenceModel`; None in
    weights that have none.
    """

    folder: Path
    name: str
    version: str
    digest: str
    networks: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Any]
    confidence: Mapping[str, float] | None = None

    @property
    def hearts(self) -> tuple[str, ...]:
        """Names of the heart networks."""
        return tuple(name for name in self.networks if name != "calcium")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Real chests and meshes used in training or calibration; never evaluate on these."""
        runs = (run.get("data", {}) for run in self.training.values())
        return tuple(sorted({host for data in runs for host in data.get("hosts", ())}))

    @property
    def model_id(self) -> str:
        """Name, version and first eight digits of the digest; value of the hive partition."""
        return f"{self.name}-{self.version}-{self.digest[:8]}"


def require_plain_name(text: str, what: str) -> None:
    """Check a part of a model id, which becomes part of a folder name.

    Raises
    ------
    WeightsError
        If it contains anything but ASCII letters, digits, dots, dashes and underscores, does not
        start with a letter or digit, or is longer than 60 characters.
    """
    if not _PLAIN_NAME.fullmatch(text):
        raise WeightsError(
            f"The {what} of the weights is {text[:60]!r}.",
            "Use up to 60 letters, digits, dots, dashes, underscores, letter or digit first.",
        )


def verify_weights(folder: Path | None = None) -> WeightsManifest:
    """Read the manifest of a folder (default: the shipped weights) and verify all checksums.

    A path that does not exist and ends with the id of the shipped weights names these. Does not
    import torch.

    Raises
    ------
    WeightsError
        If the folder or a file is missing, the manifest is malformed, or a checksum differs.
    """
    manifest = _named_manifest(folder or SHIPPED_WEIGHTS)
    folder = manifest.folder
    require_plain_name(manifest.name, "name")
    require_plain_name(manifest.version, "version")
    files = {item: folder / entry["file"] for item, entry in manifest.networks.items()}
    if any(file.parent != folder for file in files.values()):
        raise WeightsError(
            f"The manifest {folder / MANIFEST} names a file in another folder.", _HINT
        )
    for item, file in files.items():
        _verify_file(file, manifest.networks[item]["sha256"])
    return manifest


def is_weights_folder(folder: Path) -> bool:
    """Whether a folder holds weights, rather than a training run; checks nothing else."""
    return (folder / MANIFEST).is_file()


def model_id_of(named: str) -> str:
    """The model id that a person named, or that of the folder of weights that they named.

    Raises
    ------
    WeightsError
        If the folder has a malformed manifest.
    """
    folder = Path(named)
    return _read_manifest(folder).model_id if (folder / MANIFEST).exists() else named


def _named_manifest(folder: Path) -> WeightsManifest:
    """The manifest of a folder, or of the shipped weights named by their id."""
    if not folder.exists():
        shipped = _read_manifest(SHIPPED_WEIGHTS)
        if folder.name == shipped.model_id:
            return shipped
        if _MODEL_ID.fullmatch(folder.name):
            raise WeightsError(
                f"No weights at {folder}, and the shipped weights are {shipped.model_id}.",
                "Name the folder of the weights of that model with --model.",
            )
    return _read_manifest(folder.resolve())


def _read_manifest(folder: Path) -> WeightsManifest:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        items = [*NETWORKS, *sorted(filter(_FURTHER.fullmatch, manifest["networks"]))]
        networks = {item: dict(manifest["networks"][item]) for item in items}
        for entry in networks.values():
            entry["file"], entry["sha256"] = str(entry["file"]), str(entry["sha256"])
        identity: dict[str, Any] = {
            item: {"sha256": entry["sha256"], "config": entry["config"]}
            for item, entry in networks.items()
        }
        name, version = str(manifest["name"]), str(manifest["version"])
        training = dict(manifest.get("training", {}))
        confidence = _numbers(manifest.get("confidence"))
        if confidence is not None:
            identity["confidence"] = confidence
    except OSError as error:
        raise WeightsError(f"No weights at {folder} ({error.strerror}).", _HINT) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WeightsError(f"The manifest {path} is malformed.", _HINT) from None
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return WeightsManifest(folder, name, version, digest, networks, training, confidence)


def _numbers(entry: Mapping[str, Any] | None) -> dict[str, float] | None:
    return None if entry is None else {name: float(value) for name, value in entry.items()}


def _verify_file(file: Path, expected: str) -> None:
    try:
        found = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(
            f"The weights {file} cannot be read ({error.strerror}).", _HINT
        ) from None
    if found != expected:
        raise WeightsError(
            f"The weights {file} were altered: their SHA-256 is {found[:12]}..., "
            f"the manifest says {expected[:12]}...",
            _HINT,
        )


def load_network(manifest: WeightsManifest, name: str) -> ConvLSTMSegmenter:
    """Build one network of a verified folder and load its weights, in inference mode.

    Raises
    ------
    WeightsError
        If the tensors do not fit the architecture that the manifest states.
    """
    from safetensors.torch import load_file

    from cac_core.model.convlstm import ConvLSTMSegmenter, NetworkConfig

    entry = manifest.networks[name]
    file = manifest.folder / str(entry["file"])
    try:
        if entry["config"].get("branches", "both") != _FIXED_CONFIG["branches"]:
            raise ValueError("a network without one of its branches")
        network = ConvLSTMSegmenter(NetworkConfig.from_manifest(entry["config"]))
        network.load_state_dict(load_file(file))
    except (RuntimeError, TypeError, KeyError, ValueError) as error:
        raise WeightsError(
            f"The weights {file} do not fit the architecture in the manifest "
            f"({type(error).__name__}).",
            _HINT,
        ) from None
    return network.eval().requires_grad_(False)


def save_weights(
    folder: Path,
    networks: Mapping[str, ConvLSTMSegmenter],
    *,
    name: str,
    version: str,
    training: Mapping[str, Any],
    confidence: Mapping[str, float] | None = None,
) -> WeightsManifest:
    """Write the networks and their manifest; returns the verified manifest.

    Parameters
    ----------
    networks : `heart`, `calcium`, and further heart networks as `heart-2` to `heart-9`.
    training : training and calibration records; any JSON values.
    confidence : parameters of the confidence of a score.

    Raises
    ------
    WeightsError
        If name or version cannot be part of a model id.
    """
    require_plain_name(name, "name")
    require_plain_name(version, "version")
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for item in networks:
        file = folder / f"{item}.safetensors"
        save_file({k: v.contiguous() for k, v in networks[item].state_dict().items()}, file)
        file.chmod(0o644)  # safetensors creates files that only their owner can read
        entries[item] = {
            "file": file.name,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "parameters": sum(p.numel() for p in networks[item].parameters()),
            "config": networks[item].config.as_manifest() | _FIXED_CONFIG,
            "layers": [dataclasses.asdict(layer) for layer in module_layers(networks[item])],
        }
    manifest: dict[str, Any] = {"name": name, "version": version, "networks": entries}
    if confidence is not None:
        manifest["confidence"] = dict(confidence)
    manifest["training"] = dict(training)
    text = _LAYER_ROW.sub(lambda row: " ".join(row[0].split()), json.dumps(manifest, indent=2))
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return verify_weights(folder)


def initialise_from(network: nn.Module, earlier: nn.Module) -> bool:
    """Copy the weights of an equal or smaller network; returns False if it does not fit.

    Weights of additional input channels start at zero, so they do not change the output;
    additional layers keep their weights. Both networks must use the same layer names.
    """
    had, has = earlier.state_dict(), network.state_dict()
    if not all(name in has and _fits(old.shape, has[name].shape) for name, old in had.items()):
        return False
    for name, old in had.items():
        if old.ndim > 1:
            has[name][: old.shape[0], old.shape[1] :] = 0
        has[name][tuple(slice(0, size) for size in old.shape)] = old
    network.load_state_dict(has)
    return True


def _fits(part: Sequence[int], whole: Sequence[int]) -> bool:
    return len(part) == len(whole) and all(a <= b for a, b in zip(part, whole, strict=True))


def average_weights(network: nn.Module, earlier: nn.Module) -> None:
    """Set every parameter and running statistic to the mean of two networks of equal sizes."""
    before = earlier.state_dict()
    for name, value in network.state_dict().items():  # shares memory with the network
        if value.is_floating_point():
            value.lerp_(before[name].to(value), 0.5)


def add_class_bias(network: ConvLSTMSegmenter, class_index: int, offset: float) -> None:
    """Add `offset` to the score of one class, in the biases of both segmentation heads.

    The attention weights of the heads sum to one, so the fused score shifts by exactly `offset`.
    """
    for segmentation_head in (network.trunk_head, network.sequence_head):
        last: Any = segmentation_head[-1]
        last.bias.data[class_index] += offset
