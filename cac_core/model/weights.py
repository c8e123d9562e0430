"""Weights on disk: a safetensors file per network and a manifest that says what they are.

A manifest names architecture, training data, version and the SHA-256 of each file. Weights whose
bytes do not match are refused; nothing is ever fetched.
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

if TYPE_CHECKING:
    from torch import nn

    from cac_core.model.convlstm import ConvLSTMSegmenter, NetworkConfig

#: The weights that come with this version.
SHIPPED_WEIGHTS = Path(__file__).parent / "weights"
MANIFEST = "manifest.json"
NETWORKS = ("heart", "calcium")
#: Further heart networks are `heart-2`, `heart-3`, ...; the mean of their probabilities counts.
_FURTHER = re.compile(r"heart-[2-9]")
#: Name and version become the name of a folder of the warehouse, `model=<name>-<version>-<digest>`.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", re.ASCII)
_HINT = "Install the package again, or name a complete folder with --model."


@dataclass(frozen=True)
class WeightsManifest:
    """A verified folder of weights."""

    folder: Path
    name: str
    version: str
    digest: str
    networks: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Any]

    @property
    def hearts(self) -> tuple[str, ...]:
        """Names of the heart networks."""
        return tuple(name for name in self.networks if name != "calcium")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Real chests that any of the networks learnt from: none is fit to judge them."""
        runs = (run.get("data", {}) for run in self.training.values())
        return tuple(sorted({host for data in runs for host in data.get("hosts", ())}))

    @property
    def model_id(self) -> str:
        """Name, version and the first eight digits of the digest; names the hive partition."""
        return f"{self.name}-{self.version}-{self.digest[:8]}"


def require_plain_name(text: str, what: str) -> None:
    """Refuse a part of a model id that could not be part of a folder's name.

    Raises
    ------
    WeightsError
        If it holds anything but letters, digits, dots, dashes and underscores, begins with another
        sign than a letter or digit, or is longer than 60 characters.
    """
    if not _PLAIN_NAME.fullmatch(text):
        raise WeightsError(
            f"The {what} of the weights is {text[:60]!r}.",
            "Use up to 60 letters, digits, dots, dashes and underscores, a letter or digit first.",
        )


def verify_weights(folder: Path | None = None) -> WeightsManifest:
    """Read the manifest of a folder (default: the shipped weights) and check every byte.

    Needs no torch.

    Raises
    ------
    WeightsError
        If the folder or a file is missing, the manifest is malformed, or a checksum differs.
    """
    folder = (folder or SHIPPED_WEIGHTS).resolve()
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
        manifest = json.loads(text)
        items = [*NETWORKS, *sorted(filter(_FURTHER.fullmatch, manifest["networks"]))]
        networks = {item: dict(manifest["networks"][item]) for item in items}
        name, version = str(manifest["name"]), str(manifest["version"])
        expected = {item: str(networks[item]["sha256"]) for item in items}
        files = {item: folder / str(networks[item]["file"]) for item in items}
        identity = {
            item: {"sha256": expected[item], "config": networks[item]["config"]} for item in items
        }
        training = dict(manifest.get("training", {}))
    except OSError as error:
        raise WeightsError(f"No weights at {folder} ({error.strerror}).", _HINT) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WeightsError(f"The manifest {path} is malformed.", _HINT) from None
    require_plain_name(name, "name")
    require_plain_name(version, "version")
    if any(file.parent != folder for file in files.values()):
        raise WeightsError(f"The manifest {path} names a file in another folder.", _HINT)
    for item, file in files.items():
        try:
            found = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            raise WeightsError(
                f"The weights {file} cannot be read ({error.strerror}).", _HINT
            ) from None
        if found != expected[item]:
            raise WeightsError(
                f"The weights {file} were altered: their SHA-256 is {found[:12]}..., "
                f"the manifest says {expected[item][:12]}...",
                _HINT,
            )
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return WeightsManifest(folder, name, version, digest, networks, training)


def load_network(manifest: WeightsManifest, name: str) -> ConvLSTMSegmenter:
    """Build one network of a verified folder and load its weights, ready for inference.

    Raises
    ------
    WeightsError
        If the tensors do not fit the architecture that the manifest states.
    """
    from safetensors.torch import load_file

    from cac_core.model.convlstm import ConvLSTMSegmenter

    entry = manifest.networks[name]
    file = manifest.folder / str(entry["file"])
    try:
        network = ConvLSTMSegmenter(_config(entry["config"]))
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
) -> WeightsManifest:
    """Write the networks and their manifest; gives the manifest as it verifies.

    Parameters
    ----------
    networks : `heart`, `calcium`, and further heart networks as `heart-2` to `heart-9`.
    training : what they were trained on, and what was measured; any JSON values.

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
        file.chmod(0o644)  # safetensors makes files that only their owner can read
        entries[item] = {
            "file": file.name,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "parameters": sum(p.numel() for p in networks[item].parameters()),
            "config": dataclasses.asdict(networks[item].config),
        }
    manifest = {"name": name, "version": version, "networks": entries, "training": dict(training)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return verify_weights(folder)


def _config(values: Mapping[str, Any]) -> NetworkConfig:
    from cac_core.model.convlstm import NetworkConfig

    dilations = tuple(tuple(int(d) for d in block) for block in values["dense_dilations"])
    return NetworkConfig(**{**values, "dense_dilations": dilations})


def take_over(earlier: nn.Module, network: nn.Module) -> bool:
    """Give a network the weights of an earlier one that is a part of it; False if it is none.

    Where a layer has more inputs than it had, the new ones begin at zero and change nothing; new
    layers keep what they have. Both must name their layers alike.
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


def average(network: nn.Module, earlier: nn.Module) -> None:
    """Make every parameter and running statistic the mean of both networks' of one size."""
    before = earlier.state_dict()
    for name, value in network.state_dict().items():  # these share the memory of the network
        if value.is_floating_point():
            value.lerp_(before[name].to(value), 0.5)


def favour_class(network: ConvLSTMSegmenter, number: int, offset: float) -> None:
    """Add `offset` to the score of a class, for good.

    Training sees calcium far more often than an archive does, and focal loss leaves probabilities
    too close to one half; an offset chosen on held-out scans undoes both. It goes into the biases
    of both segmentation heads, whose weighted sum (the weights add to one) then holds it exactly.
    """
    for segmentation_head in (network.trunk_head, network.sequence_head):
        last: Any = segmentation_head[-1]
        last.bias.data[number] += offset
