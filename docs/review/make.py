"""Draws `order.png` and writes the table of docs/review.md: kappa by studies reviewed.

    cac evaluate set cross-generator --json > evaluation.json
    python docs/review/make.py evaluation.json

The evaluation is kept as `order.csv`; without an argument the picture is drawn from that. To review
a study is to replace its score by the truth. Orders: most doubtful first, as in the work list of
`cac review`; lowest chance of its category first; and random, the mean and the middle 90 % of 2,000
orders.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
from numpy.typing import NDArray

from cac_core.categories import cac_category
from cac_core.reading.work_list import expected_distance
from cac_core.stats.agreement import concordance, weighted_kappa
from schemas.codes import CAC_CATEGORIES
from schemas.score import CATEGORY_CHANCES

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
PAGE = HERE.parent / "review.md"
BEGIN, END = "<!-- order: written by docs/review/make.py -->\n", "<!-- end of order -->\n"
SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
ORDERS = 2000
Ints = NDArray[np.intp]


def main(evaluation: Path | None) -> None:
    """Keep the evaluation, draw the picture, and write the table."""
    if evaluation is not None:
        studies = json.loads(evaluation.read_text(encoding="utf-8"))["studies"]
        columns = ("first", "second", *CATEGORY_CHANCES)
        table = pa.table({name: [one[name] for one in studies] for name in columns})
        pc.write_csv(table, HERE / "order.csv")
    table = pc.read_csv(HERE / "order.csv")
    found, truth = (_categories(table[name].to_pylist()) for name in ("first", "second"))
    chances = np.stack([table[name].to_numpy() for name in CATEGORY_CHANCES], axis=1)
    sure = chances[np.arange(len(found)), found]
    by = {
        "most doubtful first": np.argsort(-expected_distance(chances, found), kind="stable"),
        "lowest chance first": np.argsort(sure, kind="stable"),
    }
    curves = {name: _curve(order, found, truth) for name, order in by.items()}
    rng = np.random.default_rng(2023)
    many = np.array([_curve(rng.permutation(len(found)), found, truth) for _ in range(ORDERS)])
    band = np.quantile(many, [0.05, 0.95], axis=0)
    curves["random"] = many.mean(axis=0)
    _draw(curves, band, len(found))
    lines = [
        "| reviewed | most doubtful first | lowest chance first | random (middle 90 %) |",
        "|---:|---:|---:|---:|",
    ]
    for n, share in enumerate(SHARES):
        values = [f"{curves[name][n]:.3f}" for name in by]
        low, high = band[:, n]
        lines.append(
            f"| {round(share * len(found))} ({100 * share:g} %) | {values[0]} | {values[1]} "
            f"| {curves['random'][n]:.3f} ({low:.3f} to {high:.3f}) |"
        )
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after, encoding="utf-8")
    wrong = int((found != truth).sum())
    sys.stdout.write(f"{len(found)} studies, {wrong} in another category\n")


def _categories(scores: list[float]) -> Ints:
    return np.array([CAC_CATEGORIES.index(str(cac_category(score))) for score in scores])


def _curve(order: Ints, found: Ints, truth: Ints) -> NDArray[np.float64]:
    """Kappa where the first shares of an order have the truth instead of the score."""
    values = []
    for share in SHARES:
        after = found.copy()
        reviewed = order[: round(share * len(order))]
        after[reviewed] = truth[reviewed]
        names = [[CAC_CATEGORIES[index] for index in part] for part in (truth, after)]
        values.append(weighted_kappa(concordance(names[0], names[1], CAC_CATEGORIES)).value)
    return np.array(values)


def _draw(curves: dict[str, NDArray[np.float64]], band: NDArray[np.float64], n: int) -> None:
    figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    shares = [100 * share for share in SHARES]
    axis.fill_between(shares, *band, color="0.85", lw=0, label="random, middle 90 %")
    styles = {"most doubtful first": ("C0", "-"), "lowest chance first": ("C1", "--")}
    for name, values in curves.items():
        colour, line = styles.get(name, ("0.4", "-"))
        axis.plot(shares, values, color=colour, ls=line, lw=1.6, label=name)
    axis.set(xlabel=f"reviewed, % of {n} studies", ylabel="linear-weighted kappa with the truth")
    axis.legend(frameon=False, loc="lower right")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "order.png", dpi=130)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
