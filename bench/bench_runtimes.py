"""Ways to run the networks, against the shipped one: ratio of time and largest difference.

    python -m bench.bench_runtimes [--scans 4] [--repeats 7]

First one call of each network of a fixed size (8 slices of 112 x 112 for the heart, one window of
192 x 192 for calcium), which every runtime can do; then the whole cascade on synthetic scans, for
the ways that keep its shortcuts. Differences are those of the scores before softmax, and of the
Agatston score. torch.compile is compared where there is a C++ compiler, ONNX Runtime and OpenVINO
where they are installed: `pip install onnx onnxscript onnxruntime openvino`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import io
import itertools
import logging
import shutil
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from bench.measure import Ratio, from_pairs, record, seconds
from cac_core.model.cascade import Cascade, Segmenter
from cac_core.model.convlstm import ConvLSTMSegmenter, Window
from cac_core.model.inference import for_inference
from cac_core.model.weights import load_network
from cac_core.phantom.analytic.acquisition import draw_external_settings
from cac_core.phantom.analytic.scan import SyntheticScan, synthesise_scan
from cac_core.protocol import ScoringProtocol
from cac_core.scoring.agatston import score_calcium
from cac_core.scoring.lesions import label_lesions

_FIRST_SEED = 7000
Call = Callable[[], Tensor]


class Cast(nn.Module):
    """A network in another number format or memory layout, with inputs and scores in float32."""

    def __init__(
        self, network: ConvLSTMSegmenter, kind: torch.dtype, layout: torch.memory_format
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).to(dtype=kind, memory_format=layout)
        self.config, self.kind = network.config, kind

    def forward(self, stack: Tensor, margin: int = 0, position: Tensor | None = None) -> Tensor:
        """Scores of the inner slices."""
        scores: Tensor = self.network(stack.to(self.kind), margin, self._of(position))
        return scores.float()

    def window(self, stack: Tensor, core: Window, position: Tensor | None = None) -> Tensor:
        """Scores of a window of the inner slices."""
        return self.network.window(stack.to(self.kind), core, self._of(position)).float()

    def _of(self, position: Tensor | None) -> Tensor | None:
        return None if position is None else position.to(self.kind)


@dataclass(frozen=True)
class Way:
    """A way to run one network; `make` builds it from the weights as stored."""

    name: str
    make: Callable[[ConvLSTMSegmenter], nn.Module]


def _plain(network: ConvLSTMSegmenter) -> nn.Module:
    return network


def _channels_last(network: ConvLSTMSegmenter) -> nn.Module:
    return Cast(for_inference(network), torch.float32, torch.channels_last)


def _bfloat16(network: ConvLSTMSegmenter) -> nn.Module:
    return Cast(for_inference(network), torch.bfloat16, torch.contiguous_format)


#: Ways that keep the shortcuts of the cascade.
WAYS = (
    Way("as stored", _plain),
    Way("channels last", _channels_last),
    Way("bfloat16", _bfloat16),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # of the exporters
    cascade = Cascade.load(threads=1)
    ratios, figures = one_call(cascade, options.repeats)
    more, differences = whole_cascade(cascade, list(scans(options.scans)), options.repeats)
    record("runtimes", ratios + more, figures | differences)


def scans(count: int) -> Iterator[SyntheticScan]:
    """Synthetic scans with calcium in the heart."""
    made = (
        synthesise_scan(seed, draw_external_settings(np.random.default_rng(seed)))
        for seed in itertools.count(_FIRST_SEED)
    )
    return itertools.islice((scan for scan in made if scan.calcium_class.any()), count)


@torch.inference_mode()
def one_call(cascade: Cascade, repeats: int) -> tuple[list[Ratio], dict[str, object]]:
    """One call of each network by every runtime."""
    ratios, figures = [], {}
    for name in (cascade.manifest.hearts[0], "calcium"):
        stored = load_network(cascade.manifest, name)
        generator = torch.Generator().manual_seed(1)
        shape = (10, 112, 112) if name != "calcium" else (3, 192, 192)
        inputs = [torch.randn(shape, generator=generator)]
        if stored.config.position_channels:
            inputs.append(torch.randn(shape[0] - 2, 3, *shape[1:], generator=generator))
        shipped = called(for_inference(stored), inputs)
        expected = shipped()
        for way, call in calls(stored, inputs):
            found = call()
            pairs = [(seconds(shipped), seconds(call)) for _ in range(repeats)]
            ratios.append(from_pairs(f"{name}: {way}", "shipped", way, pairs))
            figures[f"{name}: {way}: largest difference"] = float((found - expected).abs().max())
    for what, value in figures.items():
        print(f"{what}: {value:.2g}")
    return ratios, dict(figures)


def called(network: nn.Module, inputs: Sequence[Tensor]) -> Call:
    """A call of a network with a stack, and position channels if it has them."""
    return lambda: cast("Tensor", network(inputs[0], 0, *inputs[1:]))


def calls(stored: ConvLSTMSegmenter, inputs: Sequence[Tensor]) -> Iterator[tuple[str, Call]]:
    """Every way of this machine to do the call."""
    for way in WAYS:
        yield way.name, called(way.make(copy.deepcopy(stored)), inputs)
    folded = Called(for_inference(stored))
    if shutil.which("g++"):
        yield "torch.compile", called(torch.compile(for_inference(stored)), inputs)  # type: ignore[arg-type]
    if _installed("openvino"):
        yield from _openvino(folded, inputs)
    if _installed("onnxruntime", "onnxscript"):
        yield from _onnxruntime(folded, inputs)


class Called(nn.Module):
    """A network as a function of tensors alone, which exporters can follow."""

    def __init__(self, network: ConvLSTMSegmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, stack: Tensor, position: Tensor | None = None) -> Tensor:
        """Scores of the inner slices."""
        scores: Tensor = self.network(stack, 0, position)
        return scores


def _installed(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)


def _openvino(network: nn.Module, inputs: Sequence[Tensor]) -> Iterator[tuple[str, Call]]:
    import openvino  # type: ignore[import-not-found]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(network, example_input=tuple(inputs))
    arrays = [each.numpy() for each in inputs]
    for kind in ("f32", "bf16"):
        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": kind}
        compiled = openvino.Core().compile_model(model, "CPU", settings)
        yield (
            f"OpenVINO {kind}",
            lambda compiled=compiled: torch.from_numpy(np.array(compiled(arrays)[0])),
        )


def _onnxruntime(network: nn.Module, inputs: Sequence[Tensor]) -> Iterator[tuple[str, Call]]:
    import onnxruntime  # type: ignore[import-not-found]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(network, tuple(inputs), path, dynamo=True, external_data=False)
        for name, file in (("f32", path), ("int8", _int8(path, inputs))):
            session = onnxruntime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )
            names = [each.name for each in session.get_inputs()]
            feed = {name: each.numpy() for name, each in zip(names, inputs, strict=True)}
            yield (
                f"ONNX Runtime {name}",
                lambda session=session, feed=feed: torch.from_numpy(session.run(None, feed)[0]),
            )


def _int8(path: Path, inputs: Sequence[Tensor]) -> Path:
    """The network in int8, calibrated on the inputs themselves."""
    from onnxruntime import quantization  # type: ignore[import-not-found]

    class Once(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Gives the inputs once."""

        def __init__(self, names: Sequence[str]) -> None:
            feed = {name: each.numpy() for name, each in zip(names, inputs, strict=True)}
            self._left: list[Mapping[str, Any]] = [feed]

        def get_next(self) -> Mapping[str, Any] | None:
            """The next inputs, None at the end."""
            return self._left.pop() if self._left else None

    import onnx  # type: ignore[import-not-found]

    names = [each.name for each in onnx.load(path).graph.input]
    quantised = path.with_name("int8.onnx")
    quantization.quantize_static(
        path, quantised, Once(names), op_types_to_quantize=["Conv"], per_channel=True
    )
    return quantised


def whole_cascade(
    cascade: Cascade, made: Sequence[SyntheticScan], repeats: int
) -> tuple[list[Ratio], dict[str, object]]:
    """The whole cascade by the ways that keep its shortcuts."""
    ratios: list[Ratio] = []
    figures: dict[str, object] = {}
    for way in WAYS:
        hearts, calcium = (
            [cast("Segmenter", way.make(load_network(cascade.manifest, name))) for name in names]
            for names in (cascade.manifest.hearts, ("calcium",))
        )
        other = Cascade(cascade.manifest, hearts, calcium[0])
        pairs = []
        differences = []
        for scan in made:
            ours, theirs = score(cascade, scan), score(other, scan)
            differences.append(abs(ours - theirs))
            for _ in range(max(1, repeats // 3)):
                pairs.append(
                    (
                        seconds(lambda: cascade.segment(scan.hu, scan.spacing_mm)),  # noqa: B023
                        seconds(lambda: other.segment(scan.hu, scan.spacing_mm)),  # noqa: B023
                    )
                )
        ratios.append(from_pairs(f"cascade: {way.name}", "shipped", way.name, pairs))
        figures[f"cascade: {way.name}: largest difference of the score"] = max(differences)
        print(
            f"cascade, {way.name}: score differs by up to {max(differences):.3f}, "
            f"median {statistics.median(differences):.3f}"
        )
    return ratios, figures


def score(cascade: Cascade, scan: SyntheticScan) -> float:
    """Agatston score of a scan."""
    found, protocol = cascade.segment(scan.hu, scan.spacing_mm), ScoringProtocol()
    lesions = label_lesions(
        scan.hu, found.calcium_class, found.heart_mask, scan.spacing_mm, protocol
    )
    return score_calcium(lesions, protocol).agatston


if __name__ == "__main__":
    main()
