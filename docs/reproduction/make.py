"""Writes docs/reproduction.md: the paper's numbers and those of a synthetic cohort like its own.

`python docs/reproduction/make.py [FOLDER]`, from the root of the repository, makes registry and
scores in FOLDER (a temporary one if left out), runs `cac link` and `cac analyse` on them, and
writes the page from the table `estimates`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from cac_core.keys import Keyring
from cac_core.phantom.registry.dialects import write_extracts
from cac_core.phantom.registry.patients import PAPER_N
from cac_core.phantom.registry.records import make_registry
from tests.builders.registries import fill_warehouse

HERE = Path(__file__).parent
SECRET = "reproduction of synthetic patients"
INTRODUCTION = """# The paper's numbers, and ours

`python docs/reproduction/make.py` makes a synthetic registry of {n} patients after the paper's
tables (`cac_core/phantom/registry/patients.py`; Miller et al., J Nucl Med 2023), links it, runs the
shipped plan and writes this page. It says nothing about real patients; it shows that the
pipeline, from discharge abstracts to estimates, recovers the values it was given. One cohort is one
random draw: it has {events} events, the paper had 320, and one in twenty independent 95 % intervals
misses its true value.

{inside} of the {judged} published numbers with an interval here lie inside it. The others are
marked, with the reason if one is known beyond chance.
"""


def estimates_of(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Make the cohort in a folder, link and analyse it."""
    registry = make_registry(PAPER_N, 1)
    fill_warehouse(folder / "warehouse", registry, Keyring(SECRET.encode()))
    mapping = write_extracts(registry, "abstracts", folder / "extracts", 1)
    cac = [str(Path(sys.executable).with_name("cac"))]
    environment = {"CAC_LINKAGE_KEY": SECRET, "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    shared = ["-w", str(folder / "warehouse"), "-q", "--json"]
    subprocess.run(
        [*cac, "link", *shared, "--mapping", str(mapping)],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    done = subprocess.run(
        [*cac, "analyse", *shared], env=environment, check=True, capture_output=True, text=True
    )
    path = folder / "warehouse" / "estimates" / "estimates.parquet"
    return pq.read_table(path).to_pandas(), json.loads(done.stdout)


def found(estimates: pd.DataFrame, key: dict[str, object]) -> pd.Series:
    """The one row with these columns; population `all` and no level unless the key has them."""
    wanted = {"population": "all", "level": None} | key
    mask = pd.Series(True, index=estimates.index)
    for column, value in wanted.items():
        mask &= estimates[column].isna() if value is None else estimates[column] == value
    rows = estimates[mask & estimates["term"].notna()] if "term" in key else estimates[mask]
    if len(rows) != 1:
        raise SystemExit(f"{len(rows)} rows for {key}")
    return rows.iloc[0]


def rounded(value: float) -> str:
    """A number with the digits of the paper."""
    if abs(value) >= 100 or float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def with_interval(value: float, low: float | None, high: float | None) -> str:
    """A number with its interval, if any."""
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return rounded(value)
    return f"{rounded(value)} ({rounded(low)} to {rounded(high)})"


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch)
        estimates, summary = estimates_of(folder)
    groups = tomllib.loads((HERE / "published.toml").read_text(encoding="utf-8"))["group"]
    lines: list[str] = []
    judged = inside = 0
    for group in groups:
        lines += ["", f"## {group['title']} ({group['source']})", ""]
        lines += ["| | paper | ours | difference | |", "|---|---|---|---|---|"]
        for row in group["rows"]:
            ours = found(estimates, group["key"] | row["key"])
            low, high = ours["ci_low"], ours["ci_high"]
            note = row.get("reason", "")
            if pd.notna(low):
                # The paper rounds: a difference within the rounding is no miss.
                slack = 0.5 * 10.0 ** -len(str(row["value"]).partition(".")[2])
                fits = low - slack <= row["value"] <= high + slack
                judged, inside = judged + 1, inside + fits
                note = "" if fits else f"**outside**: {note or 'by chance, as far as we know'}"
            paper = with_interval(row["value"], *row.get("ci", (None, None)))
            difference = rounded(ours["value"] - row["value"])
            cells = (row["name"], paper, with_interval(ours["value"], low, high), difference, note)
            lines.append(f"| {' | '.join(cells)} |")
    events = int(
        found(estimates, {"analysis": "follow_up", "outcome": "mace", "statistic": "median"})[
            "n_events"
        ]
    )
    introduction = INTRODUCTION.format(
        n=summary["patients"], events=events, judged=judged, inside=inside
    )
    page = introduction + "\n".join(lines) + "\n"
    (HERE.parent / "reproduction.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
