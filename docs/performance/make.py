"""Writes docs/performance.md and its pictures from the records in bench/results.

    python docs/performance/make.py

`make bench` writes the records.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
RESULTS = HERE.parent.parent / "bench" / "results"
PICTURES = HERE.parent / "pictures"

PAGE = """# Performance

Figures of one machine ({processor}, {cores} cores, Python {python}, torch {torch}; {measured});
`make bench` measures on yours, writes a record to `bench/results` for each program, and `python
docs/performance/make.py` makes this page of them. Times are processor time of one thread, so that
they depend little on what else runs; ratios are medians over repetitions in which both were
measured in turn, with quartiles.

## Where the time of a study goes

![Time by part](pictures/study-time.png)

From files to row, {n_studies} synthetic studies of 37 to 88 slices of 512 x 512, some of them
compressed (`python -m bench.bench_study`): **{median:.2f} core-seconds** in the median study,
quartiles {low:.2f} and {high:.2f}. What one core can do bounds it: the networks take {gflop:.1f}
GFLOP per study, a large matrix product does {matmul:.0f} GFLOP in a core-second, so no runtime in
float32 needs less than {floor:.2f} s. The files have {megabytes:.0f} MB.

## What the shortcuts save, and other networks

{cascade}

"Over whole slices" runs the same networks on every pixel and gives the same classes, to the voxel
(`python -m bench.bench_cascade`). The other networks have random weights, on which speed does not
depend; [evaluation.md](evaluation.md) compares agreement.

## Earlier versions

{versions}

`python -m bench.bench_versions COMMIT` measures any of them beside this one, on the same studies.

## Runtimes of the networks

More than 1 means that the shipped way is faster. {runtimes_note}

{runtimes}

Largest differences of the scores before softmax, one call: {differences}.

A runtime must be 1.5 times as fast on the whole study to be worth a dependency. None is
([decisions.md](decisions.md#where-the-networks-run)): the calls are a half to two thirds of a
study, and what is faster on whole slices is not on the windows of the cascade, whose sizes change
from call to call.

## Reading

{reading}

Beside the bare reads lie the digest of the pixels (BLAKE3, which identifies what was scored), the
conversion to HU, and the walk over every header with its checks. Two of them bound it: the digest
alone takes as long as the bare reads, the headers twice as long.

## Cost against size

![Seconds by size](pictures/study-size.png)

The networks see slices about 5 mm apart in a field of 448 mm at 4 mm for the heart, and windows
around candidates for calcium. Neither grows with the number of thin slices or with the matrix as
the volume does.

## Whole programs

Wall time, on the machine and with the versions in the records of `bench/results`.

{programs}
"""

#: Records of programs that are shown as they are, and what they measure.
PROGRAMS = {
    "waits": "what a user waits for",
    "rescore": "a run over an archive",
    "workers": "workers of one machine",
    "overlap": "the next study read during the networks of this one",
    "index": "the index",
    "scale": "the cost of orchestration",
    "night": "a night without much to do",
    "networks": "other networks, in processes of their own",
    "link": "linkage",
    "analysis": "the plan of the paper",
    "pacs": "a PACS (Orthanc)",
    "review": "the reading page",
}


def main() -> None:
    """Write page and pictures."""
    study, cascade, runtimes, versions = (
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("study", "cascade", "runtimes", "versions")
    )
    figures, machine = study["figures"], study["machine"]
    _draw_parts(figures)
    _draw_sizes(figures["seconds_by_size"])
    low, median, high = figures["core_seconds"]
    calls = [row for row in runtimes["ratios"] if not row["what"].startswith("cascade")]
    differences = {
        what.removesuffix(": largest difference"): value
        for what, value in runtimes["figures"].items()
        if what.endswith(": largest difference")
    }
    packages = runtimes["machine"]["packages"]
    named = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
    page = PAGE.format(
        processor=machine["processor"],
        cores=machine["cores"],
        python=machine["python"],
        torch=machine["packages"]["torch"],
        measured=study["measured"],
        n_studies=figures["n_studies"],
        low=low,
        median=median,
        high=high,
        gflop=figures["gflop"],
        matmul=figures["gflop_per_s_matmul"],
        floor=figures["gflop"] / figures["gflop_per_s_matmul"],
        megabytes=figures["megabytes"],
        cascade=_table(cascade["ratios"]),
        versions=_table(versions["ratios"]),
        runtimes_note=", ".join(
            f"{words} {packages[name]}" for name, words in named.items() if name in packages
        )
        + ".",
        runtimes=_table([*calls, *(r for r in runtimes["ratios"] if r not in calls)]),
        differences=", ".join(f"{what} {value:.1g}" for what, value in differences.items()),
        reading=_table(study["ratios"]),
        programs="\n\n".join(map(_program, PROGRAMS)),
    )
    (HERE.parent / "performance.md").write_text(page, encoding="utf-8")


def _program(name: str) -> str:
    """Ratios and figures of one record; says so where there is none."""
    title = f"### `bench_{name}`: {PROGRAMS[name]}"
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return f"{title}\n\nNot measured for this version."
    found = json.loads(path.read_text(encoding="utf-8"))
    parts = [f"{title}\n\n{found['measured']}, {found['machine']['processor']}."]
    if found["ratios"]:
        parts.append(_table(found["ratios"]))
    if found["figures"]:
        rows = [f"| {what} | {_figure(value)} |" for what, value in found["figures"].items()]
        parts.append("\n".join(["| | |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _figure(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_figure(each)}" for name, each in value.items())
    if isinstance(value, list):
        return "; ".join(map(_figure, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _table(ratios: list[dict[str, Any]]) -> str:
    lines = ["| | ratio | quartiles | ms | ms of the other | n |", "|---|---|---|---|---|---|"]
    for row in ratios:
        lines.append(
            f"| {row['what']} | {row['ratio']:.2f} | {row['low']:.2f} to {row['high']:.2f} "
            f"| {row['seconds_ours'] * 1e3:.0f} | {row['seconds_other'] * 1e3:.0f} | {row['n']} |"
        )
    return "\n".join(lines)


def _draw_parts(figures: dict[str, Any]) -> None:
    parts = list(figures["part_seconds_mean"].items())[::-1]
    figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
    bars = axes.barh([part for part, _ in parts], [1e3 * s for _, s in parts], color="#33658a")
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
    axes.set_xlabel("core-milliseconds per study, mean")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
    figure.savefig(PICTURES / "study-time.png", dpi=110)


def _draw_sizes(rows: list[dict[str, float]]) -> None:
    figure, pair = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", sharey=True)
    for axes, by, label in zip(
        pair, ("slices", "matrix"), ("slices of 512 x 512", "matrix, 45 slices"), strict=True
    ):
        other = {"slices": ("matrix", 512), "matrix": ("slices", 45)}[by]
        chosen = [row for row in rows if row[other[0]] == other[1]]
        axes.plot(
            [row[by] for row in chosen], [row["seconds"] for row in chosen], "o-", color="#33658a"
        )
        axes.set_xlabel(label)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    pair[0].set_ylabel("core-seconds, networks")
    figure.savefig(PICTURES / "study-size.png", dpi=110)


if __name__ == "__main__":
    main()
