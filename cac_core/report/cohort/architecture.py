"""Section of the networks (Figure 1): drawing and table of layers, from their manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from cac_core.model.layer_table import Layer, manifest_layers
from cac_core.report.cohort.report import Report
from cac_core.report.cohort.sections import Block, ReportSection
from cac_core.report.figures.architecture import Sketch, architecture_figure
from cac_core.report.page import Column, DataTable

#: Classes of a network's output, by how many there are.
_CLASSES = {2: "background,\nheart", 3: "background,\ncoronary,\nother calcium"}
_COLUMNS = ("Layer", "Network", "Part", "Kernel", "Channels in", "Channels out", "Dilation",
            "Size of output", "Parameters")  # fmt: skip
_COUNTS = {1: "one network", 2: "two networks", 3: "three networks"}


def architecture_section(report: Report) -> ReportSection:
    """The cascade with the sizes that the manifest of the weights states."""
    section, block = ReportSection("figure-1", "The networks (Figure 1)"), Block()
    section.blocks.append(block)
    networks = report.facts.networks
    hearts = [name for name in networks if name != "calcium"]
    if not hearts or "calcium" not in networks:
        block.missing(["the weights that scored this cohort are not installed"])
        return section
    shown = {"Heart": networks[hearts[0]], "Calcium": networks["calcium"]}
    rows = {name: manifest_layers(entry) for name, entry in shown.items()}
    many = _COUNTS.get(len(hearts), f"{len(hearts)} networks")
    drawing = architecture_figure(
        [_sketch(name, rows[name], entry["config"]) for name, entry in shown.items()],
        _steps(many, bool(networks["calcium"]["config"].get("place", False))),
    )
    for name, entry in shown.items():
        branches = entry["config"].get("branches", "both")
        if branches != "both":
            block.missing([f"{name}: only the branch `{branches}` of the drawing is used"])
    block.say(
        "Heart: {} of {} parameters each, averaged by probability. Calcium: one network of {} "
        "parameters. Channels, kernels and sizes are those of the weights that scored this cohort.",
        many,
        f"{sum(row.parameters for row in rows['Heart']):,}",
        f"{sum(row.parameters for row in rows['Calcium']):,}",
    )
    figure = report.keep_figure(
        "figure-architecture",
        drawing,
        "The cascade, and the layers of its networks. R, C: rows and columns of the image.",
        "From scan to score: heart networks segment the heart, the calcium network separates "
        "coronary from other calcium inside it, and voxels above the threshold are scored. In "
        "each network the current slice goes through a dense trunk to head 1; next, current and "
        "previous slice go through a convolutional LSTM to head 2 and to an attention map, which "
        "weights head 2, while its complement weights head 1. All sizes are in the table below.",
        _table(rows),
    )
    block.draw(figure)
    return section


def _steps(many: str, place: bool) -> list[str]:
    inputs = "slice, neighbours,\nplace in the heart" if place else "slice and neighbours"
    return [
        "CT scan,\nall slices",
        f"Heart: {many},\nmean probability",
        "Heart mask",
        f"Calcium network\n({inputs})",
        "Coronary and\nother calcium",
        "Threshold,\nAgatston score",
    ]


def _sketch(name: str, rows: Sequence[Layer], config: Mapping[str, Any]) -> Sketch:
    parts = {part: list(group) for part, group in groupby(rows, lambda row: row.part)}
    stem = [row for row in parts["trunk"] if row.name.startswith("stem")]
    head = parts["head 1"]
    return Sketch(
        title=f"{name} network",
        single=("current slice\n" if stem[0].n_in == 1 else "current slice,\nplace in the heart\n")
        + f"{stem[0].n_in} x R x C",
        stack="next, current,\nprevious slice\n3 x R x C",
        stem="stem, 2 layers\n3x3, stride 2\n"
        + " to ".join(str(row.n_out) for row in stem)
        + f" channels, R/{stem[-1].scale}",
        blocks=_blocks(config),
        head_1=f"head 1\n3x3, {head[0].n_in} to {head[0].n_out}, twice;\n"
        f"1x1, {head[-1].n_out}; to R x C",
        cells=[
            f"{row.name.replace('cell', 'ConvLSTM')}\n3x3, {row.n_in} to {row.n_out}\nR x C"
            for row in parts["ConvLSTM"]
        ],
        head_2=_head("head 2", parts["head 2"]),
        attention=_head("attention, sigmoid", parts["attention head"]),
        output=_CLASSES.get(config["n_classes"], f"{config['n_classes']} classes"),
    )


def _head(name: str, rows: Sequence[Layer]) -> str:
    return f"{name}\n3x3, {rows[0].n_in} to {rows[0].n_out}, twice;\n1x1, {rows[-1].n_out}; R x C"


def _blocks(config: Mapping[str, Any]) -> list[str]:
    """A text for each dense block, with the transition before it."""
    channels, scale, found = config["stem_channels"], 4, []
    for number, dilations in enumerate(config["dense_dilations"], 1):
        if number > 1:
            channels, scale = channels // 2, scale * 2
        before, channels = channels, channels + config["growth"] * len(dilations)
        spread = ", ".join(map(str, dilations)) if set(dilations) != {1} else "1"
        found.append(
            f"dense block {number}, {len(dilations)} layers\n3x3, dilation {spread}\n"
            f"{before} to {channels} channels, R/{scale}"
        )
    return found


def _table(rows: Mapping[str, Sequence[Layer]]) -> DataTable:
    lines = [
        [
            row.name, name, row.part, f"{row.kernel}x{row.kernel}", str(row.n_in), str(row.n_out),
            str(row.dilation), "R x C" if row.scale == 1 else f"R/{row.scale} x C/{row.scale}",
            f"{row.parameters:,}",
        ]
        for name, found in rows.items()
        for row in found
    ]  # fmt: skip
    return DataTable(
        "layers",
        "Layers of the networks",
        tuple(Column(title) for title in _COLUMNS),
        lines,
        note="Each convolution but the last of a head is followed by batch norm and leaky ReLU; "
        "a layer of a dense block concatenates its channels with its input.",
    )
