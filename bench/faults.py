"""Faults of a run at random moments, and whether the tables are the same as without them.

    python -m bench.faults [--repeat 20] [--seed N] [--only FAULT ...] [--list]

Scores a small archive with a stub in place of the networks (`bench/stub_cascade.py`). Each
repetition starts a run, does one fault to it at a random moment, waits for its end, and runs
`cac score` again undisturbed. The tables `scores`, `lesions` and `previews` must then be those of a
run without a fault (all columns but times and ids of runs), and no process may be left. Prints the
seed, and one line per fault: repetitions, whole tables, longest time of the disturbed run, its exit
codes. Ends with 1 if a table was not whole. Full disks need root (tmpfs), else they are left out.
A jump of the clock is not among the faults: `time.sleep` of Python fails under libfaketime 0.9.10.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from bench.fault_kinds import FAULTS, Fault, SkippedError
from bench.fault_run import Bench


@dataclass
class Tally:
    """What happened in the repetitions of one fault."""

    whole: int = 0
    longest_s: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)


def main() -> None:
    """Do each fault, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", nargs="+", default=[fault.name for fault in FAULTS])
    parser.add_argument("--list", action="store_true", help="name the faults, and do none")
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if fault.name in options.only]
    if options.list or not chosen:
        print("\n".join(f"{fault.name:<18}{fault.what}" for fault in FAULTS))
        return
    print(f"seed {options.seed}, {options.repeat} repetitions")
    with tempfile.TemporaryDirectory(prefix="cac-faults-") as folder, Bench(Path(folder)) as bench:
        print(f"a run without a fault takes {bench.usual_s:.1f} s", flush=True)
        print(f"{'fault':<18}{'times':>6}{'whole':>7}{'longest s':>11}  exit codes")
        all_whole = True
        for fault in chosen:
            tally = _repeated(bench, fault, options.repeat, options.seed)
            all_whole &= tally is None or tally.whole == options.repeat
    sys.exit(not all_whole)


def _repeated(bench: Bench, fault: Fault, repeat: int, seed: int) -> Tally | None:
    """Do one fault `repeat` times and print its line; None if it cannot be done here."""
    tally, luck = Tally(), random.Random(f"{seed} {fault.name}")
    try:
        for _ in range(repeat):
            began = monotonic()
            outcome = bench.disturbed(fault, luck)
            tally.longest_s = max(tally.longest_s, outcome.ended - began)
            tally.codes[outcome.code] += 1
            tally.whole += not outcome.differences
            tally.notes.update(outcome.differences)
            if outcome.said:
                tally.notes[f"exit {outcome.code}: {outcome.said}"] += 1
    except SkippedError as reason:
        print(f"{fault.name:<18} left out: {reason}", flush=True)
        return None
    codes = ", ".join(f"{code} ({n})" for code, n in tally.codes.most_common())
    print(
        f"{fault.name:<18}{repeat:>6}{tally.whole:>7}{tally.longest_s:>11.1f}  {codes}", flush=True
    )
    for note, n in tally.notes.items():
        print(f"{'':<18}{n} x {note}", flush=True)
    return tally


if __name__ == "__main__":
    main()
