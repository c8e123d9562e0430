"""A night with nothing to do over a large index, and the time until the first study begins.

    python -m bench.bench_night [--series 100000] [--studies 4]

Writes an archive of one-file series, each a study of its own, and runs `cac score` twice: the
first run opens every file and rejects every study (too few slices), the second finds nothing to do.
Then scores a few synthetic studies with the real networks, twice, each in a fresh warehouse, and
takes the time from the start of the process to the first study on a worker. Prints the times.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import time
from typing import Any

from bench import small_archive
from bench.measure import record
from cac_core.phantom.archive.write import write_archive


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--studies", type=int, default=4, help="for the start; 0: leave it out")
    options = parser.parse_args()
    figures: dict[str, object] = {"series": options.series}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.series:
            small_archive.write_studies(folder / "archive", options.series, slices=1)
            print(f"{options.series} series of one file", flush=True)
            for what in ("first run", "nothing to do"):
                figures[f"{what}_s"] = run(folder, what)
        if options.studies:
            write_archive(folder / "phantoms", studies=options.studies, seed=5, workers=2)
            figures |= start(folder)
        record("night", [], figures)


def run(folder: Path, what: str) -> float:
    """One `cac score` over the large archive: seconds; prints them and those of its steps."""
    settings = small_archive.write_settings(folder, logging={"file": str(folder / f"{what}.log")})
    began = time()
    summary = score(folder / "archive", folder / "warehouse", settings, folder)
    seconds = time() - began
    print(
        f"{what:<24}{seconds:6.1f} s, of these {summary['seconds']:.1f} s in the flow; "
        f"{summary['rejected']} rejected, {summary['skipped']} skipped"
    )
    lines = (folder / f"{what}.log").read_text(encoding="utf-8").splitlines()
    steps = [event for event in map(json.loads, lines) if event.get("event") == "step"]
    listed = ", ".join(f"{event['step']} {event['seconds']:.1f}" for event in steps)
    print(f"{'':<24}steps in seconds: {listed}", flush=True)
    return seconds


def start(folder: Path) -> dict[str, float]:
    """Time from the start of `cac score` to its first study, with the real networks.

    Of a first night, which makes Prefect's database, and of a later one.
    """
    found = {}
    for what in ("first night", "later night"):
        place = folder / what
        place.mkdir()
        log, settings = place / "run.log", place / "cac.toml"
        settings.write_text(f'[logging]\nfile = "{log}"\n', encoding="utf-8")
        began = time()
        score(folder / "phantoms", place / "warehouse", settings, folder / "start")
        seconds = _first_study(log) - began
        print(f"start to first study    {seconds:6.1f} s, {what}", flush=True)
        found[f"start_to_first_study_{what.replace(' ', '_')}_s"] = seconds
    return found


def _first_study(log: Path) -> float:
    """When the first study began: when it ended, less the time that it took its worker."""
    events = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    return min(
        dt.datetime.fromisoformat(event["time"]).timestamp() - event["seconds"]
        for event in events
        if event["event"] == "study"
    )


def score(archive: Path, warehouse: Path, settings: Path, home: Path) -> dict[str, Any]:
    """Run `cac score` and return its summary."""
    command = [str(Path(sys.executable).with_name("cac")), "score", str(archive), "--json"]
    done = subprocess.run(
        [*command, "-c", str(settings), "-w", str(warehouse)],
        env=os.environ
        | {"CAC_LINKAGE_KEY": small_archive.SECRET, "PREFECT_HOME": str(home / "prefect")}
        # An installed program has its bytecode.
        | {"PYTHONDONTWRITEBYTECODE": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


if __name__ == "__main__":
    main()
