"""Processor time of a study, from files to row, by this version and by earlier ones.

    python -m bench.bench_versions COMMIT ... [--studies 12] [--repeats 3]

Checks out each commit into a temporary folder and scores the same synthetic archive with each
version in turn, in a process of its own with one thread. Prints how many times less time this
version takes, over the studies that both score.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import from_pairs, record
from cac_core.phantom.archive.write import write_archive

ROOT = Path(__file__).parent.parent
#: Runs in the checkout of a version: processor time by study.
_SCORE = """
import json, sys
from pathlib import Path
from time import process_time
from cac_core.cohort.worklist import Identity, wanted_studies, work_orders
from cac_core.dicom.index import index_archive
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import load_rules
from cac_core.dicom.series import series_table
from cac_core.keys import Keyring
from cac_core.model.cascade import Cascade
from cac_core.protocol import ScoringProtocol
from cac_core.study import score_study

rules, spent = load_rules(), {}
found = index_archive([Path(sys.argv[1])], Keyring(b"a secret of the benchmark"))
series = select_series(series_table(found.instances), rules)
wanted = wanted_studies(found.instances, series, Identity("0" * 64, "0" * 16, rules.digest))
cascade, protocol = Cascade.load(threads=1), ScoringProtocol()
works = list(work_orders(wanted, found.instances, found.paths))
score_study(works[0], cascade, protocol)
for work in works:
    begin = process_time()
    row = score_study(work, cascade, protocol).score
    if row["status"] == "scored":
        spent[work.study_key] = process_time() - begin
print(json.dumps(spent))
"""
#: As in a worker: one thread, and freed memory is kept.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commits", nargs="+")
    parser.add_argument("--studies", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        archive = Path(name) / "archive"
        write_archive(archive, studies=options.studies, seed=7, workers=2)
        for commit in options.commits:
            checkout = Path(name) / commit
            checkout.mkdir()
            tar = subprocess.run(
                ["git", "archive", commit], cwd=ROOT, capture_output=True, check=True
            )
            subprocess.run(["tar", "-x"], input=tar.stdout, cwd=checkout, check=True)
            pairs = []
            for _ in range(options.repeats):
                ours, theirs = scored(ROOT, archive), scored(checkout, archive)
                pairs += [(ours[key], theirs[key]) for key in ours.keys() & theirs.keys()]
            ratios.append(from_pairs(f"version of {commit}", "this version", commit, pairs))
    record("versions", ratios)


def scored(checkout: Path, archive: Path) -> dict[str, float]:
    """Processor time of each study that a version scores."""
    done = subprocess.run(
        [sys.executable, "-c", _SCORE, str(archive)],
        cwd=checkout,
        env=os.environ | _ENVIRONMENT | {"PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
