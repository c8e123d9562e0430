"""Faults of a run at random moments, and whether the tables are the same as without them.

    python -m bench.faults [--repeat 20] [--minutes M] [--seed N] [--only FAULT ...] [--list]

Scores a small archive with a stub in place of the networks (`bench/stub_cascade.py`). Each
repetition starts a run, does one fault to it at a random moment, waits for its end, and runs
`cac score` again undisturbed. The tables `scores`, `lesions` and `previews` must then be those of a
run without a fault (all columns but times and ids of runs), and no process may be left. Every fault
is repeated once before any is repeated again, so that the time of `--minutes` covers all of them.
Prints the seed, and one line per fault: repetitions, whole tables, longest time of the disturbed
run, its exit codes; the same goes to `bench/results/faults.json`. Ends with 1 if a table was not
whole. Full disks need root (tmpfs) and jumps of the clock a C compiler, else they are left out.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from bench.fault_kinds import FAULTS, Fault, SkippedError
from bench.fault_run import Bench
from bench.measure import record


@dataclass
class Tally:
    """What happened in the repetitions of one fault."""

    times: int = 0
    whole: int = 0
    longest_s: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def repeat(self, bench: Bench, fault: Fault, luck: random.Random) -> None:
        """Do the fault once."""
        began = monotonic()
        outcome = bench.disturbed(fault, luck)
        self.times += 1
        self.longest_s = max(self.longest_s, outcome.ended - began)
        self.codes[outcome.code] += 1
        self.whole += not outcome.differences
        self.notes.update(outcome.differences)
        if outcome.said:
            self.notes[f"exit {outcome.code}: {outcome.said}"] += 1
        for difference in outcome.differences:
            print(f"{fault.name}, repetition {self.times}: {difference}", flush=True)


def main() -> None:
    """Do each fault, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin none after these")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", nargs="+", default=[fault.name for fault in FAULTS])
    parser.add_argument("--list", action="store_true", help="name the faults, and do none")
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if fault.name in options.only]
    if options.list or not chosen:
        print("\n".join(f"{fault.name:<18}{fault.what}" for fault in FAULTS))
        return
    print(f"seed {options.seed}, up to {options.repeat} repetitions")
    with tempfile.TemporaryDirectory(prefix="cac-faults-") as folder, Bench(Path(folder)) as bench:
        print(f"a run without a fault takes {bench.usual_s:.1f} s", flush=True)
        tallies = _repeated(bench, chosen, options)
    print(f"{'fault':<18}{'times':>6}{'whole':>7}{'longest s':>11}  exit codes")
    for name, tally in tallies.items():
        codes = ", ".join(f"{code} ({n})" for code, n in tally.codes.most_common())
        print(f"{name:<18}{tally.times:>6}{tally.whole:>7}{tally.longest_s:>11.1f}  {codes}")
        for note, n in tally.notes.items():
            print(f"{'':<18}{n} x {note}")
    sys.exit(any(tally.whole < tally.times for tally in tallies.values()))


def _repeated(bench: Bench, faults: list[Fault], options: argparse.Namespace) -> dict[str, Tally]:
    """Do the faults in turn until each was done often enough or the time is over."""
    tallies = {fault.name: Tally() for fault in faults}
    luck = {fault.name: random.Random(f"{options.seed} {fault.name}") for fault in faults}
    end = monotonic() + 60 * options.minutes
    for _ in range(options.repeat):
        for fault in [fault for fault in faults if fault.name in tallies]:
            if monotonic() >= end:
                return tallies
            try:
                tallies[fault.name].repeat(bench, fault, luck[fault.name])
            except SkippedError as reason:
                print(f"{fault.name:<18} left out: {reason}", flush=True)
                del tallies[fault.name]
            _record(tallies, bench, options.seed)
    return tallies


def _record(tallies: dict[str, Tally], bench: Bench, seed: int) -> None:
    what = {fault.name: fault.what for fault in FAULTS}
    figures = {
        "seed": seed,
        "undisturbed_s": round(bench.usual_s, 1),
        "load": round(os.getloadavg()[0], 1),
        "faults": [
            {"name": name, "what": what[name]} | vars(tally) for name, tally in tallies.items()
        ],
    }
    record("faults", [], figures)


if __name__ == "__main__":
    main()
