"""The training plan: a TOML file with everything that a set of weights is made from."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cac_core.errors import UsageError
from cac_core.training.records import Kind
from cac_core.training.sample_store import TrainingData
from cac_core.training.settings import TrainingSettings, default_settings
from cac_core.training.train import InitialWeights, initial_weights

_PATHS = ("mapping", "samples", "data", "mean_with", "hearts")
_KEYS = {"table", "out", *_PATHS, "readers", "name", "favour_coronary", "heart", "calcium"}
_INITIAL_KEYS = ("begin", "begin_heart")
_HINT = "See docs/training.md for an example."


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """Training of one network: its settings and the weights that it starts from."""

    settings: TrainingSettings
    initial: InitialWeights | None = None


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A plan, with absolute paths; options of the export as in `export_weights`.

    With `kept_hearts`, a folder of weights, their heart networks are used and none is trained.
    """

    data: TrainingData
    out: Path
    readers: tuple[str, ...]
    hearts: tuple[NetworkPlan, ...]
    calcium: NetworkPlan
    version: str
    coronary_bias: float
    mean_with: Path | None
    kept_hearts: Path | None

    def heart_runs(self) -> list[Path]:
        """Folders of the runs of the heart networks, named as in the weights."""
        return [
            self.out / (f"heart-{number}" if number > 1 else "heart")
            for number in range(1, len(self.hearts) + 1)
        ]


def read_plan(path: Path) -> TrainingPlan:
    """Read a training plan; relative paths start at its folder.

    Raises
    ------
    UsageError
        If the file cannot be read, a key is missing or unknown, or a value has the wrong type.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The training plan {path} cannot be read ({type(error).__name__}).", _HINT
        ) from None
    unknown, missing = set(content) - _KEYS, {"table", "out"} - set(content)
    if unknown or missing:
        raise UsageError(
            f"The training plan {path} has unknown keys ({', '.join(sorted(unknown)) or 'none'}) "
            f"or lacks some ({', '.join(sorted(missing)) or 'none'}).",
            f"It may hold {', '.join(sorted(_KEYS))}.",
        )
    if {"heart", "hearts"} <= set(content):
        raise UsageError(
            f"The training plan {path} both trains heart networks (`heart`) and keeps those of "
            "weights (`hearts`).",
            "Remove one of the two keys.",
        )
    base = path.resolve().parent
    paths = {name: base / _text(content, name) for name in _PATHS if name in content}
    readers = content.get("readers", [])
    return TrainingPlan(
        data=TrainingData(
            base / _text(content, "table"),
            paths.get("mapping"),
            paths.get("samples"),
            paths.get("data"),
        ),
        out=base / _text(content, "out"),
        readers=tuple(_typed("reader", each, "") for each in _typed("readers", readers, [])),
        hearts=() if "hearts" in paths else _hearts(content.get("heart", {}), base),
        calcium=_network("calcium", content.get("calcium", {}), base),
        version=_text(content, "name", "own"),
        coronary_bias=_typed("favour_coronary", content.get("favour_coronary", 0.0), 0.0),
        mean_with=paths.get("mean_with"),
        kept_hearts=paths.get("hearts"),
    )


def _hearts(content: Any, base: Path) -> tuple[NetworkPlan, ...]:
    several = content if isinstance(content, list) and content else [content]
    return tuple(_network("heart", each, base) for each in several)


def _network(kind: Kind, content: Any, base: Path) -> NetworkPlan:
    if not isinstance(content, Mapping):
        raise UsageError(f"`{kind}` in the training plan is no table.", _HINT)
    default = default_settings(kind)
    known = [field.name for field in dataclasses.fields(TrainingSettings)]
    unknown = set(content) - {*known, *_INITIAL_KEYS}
    if unknown:
        raise UsageError(
            f"The training plan has an unknown key in [{kind}]: {', '.join(sorted(unknown))}.",
            f"Choose from {', '.join([*known, *_INITIAL_KEYS])}.",
        )
    changes: dict[str, Any] = {
        name: _typed(f"{kind}.{name}", content[name], getattr(default, name))
        for name in known
        if name in content
    }
    begin = base / _text(content, "begin") if "begin" in content else None
    heart = _typed(f"{kind}.begin_heart", content.get("begin_heart", 1), 1)
    return NetworkPlan(dataclasses.replace(default, **changes), initial_weights(kind, begin, heart))


def _text(content: Mapping[str, Any], name: str, default: str = "") -> str:
    return str(_typed(name, content.get(name, default), ""))


def _typed(name: str, value: Any, like: Any) -> Any:
    """The value, checked to have the type of `like`; integers are converted to floats."""
    valid = (int, float) if isinstance(like, float) else type(like)
    if not isinstance(value, valid) or isinstance(value, bool):
        raise UsageError(
            f"`{name}` in the training plan is {value!r}, not {type(like).__name__}.", _HINT
        )
    return float(value) if isinstance(like, float) else value
