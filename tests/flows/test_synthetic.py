"""The synthetic study without scans, as `cac demo --full` makes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import UsageError
from cac_core.phantom.registry.scored_archive import SYNTHETIC_MODEL
from flows.linkage import link_cohort
from flows.request import LinkageRequest
from flows.runtime.progress import RunProgress
from flows.synthetic import DEMO_SECRET, FULL_PATIENTS, make_scored_registry
from schemas.lesion import LESIONS
from schemas.linked import LINKED
from schemas.score import SCORES
from schemas.series import SERIES
from tests.flows.conftest import Cac

QUIET = RunProgress(Console(stderr=True), quiet=True)
#: What only scans, networks and their runs can give.
NOT_WITHOUT_SCANS = {
    "Training population against this cohort (Supplemental Table 1)",
    "Methods of this run",
    "The networks (Figure 1)",
    "Versions and digests",
    "Example cases (Figure 2)",
}


def test_drawn_scores_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAC_LINKAGE_KEY", DEMO_SECRET)
    made = make_scored_registry(tmp_path / "study", 80, 3, QUIET)
    store = Warehouse(made.warehouse)
    assert store.models() == (made.model,) == (SYNTHETIC_MODEL,)
    scores = store.read(SCORES)
    assert made.studies == scores.num_rows == store.read(SERIES).num_rows
    assert store.read(LESIONS).num_rows > 0
    summary = link_cohort(LinkageRequest(made.warehouse, mapping=made.registry.mapping))
    assert (summary.included, summary.model) == (80, SYNTHETIC_MODEL)
    linked = store.read(LINKED)
    sure = dict(zip(scores["study_key"].to_pylist(), scores["p_category_0"].to_pylist(),
                    strict=True))  # fmt: skip
    for row in linked.to_pylist():
        assert row["p_category_0"] == sure[row["study_key"]]
        assert row["agatston_low"] <= row["agatston"] <= row["agatston_high"]
    with pytest.raises(UsageError, match="not empty"):
        make_scored_registry(tmp_path / "study", 80, 3, QUIET)


@pytest.mark.slow
def test_the_whole_report_without_a_scan(cac: Cac, tmp_path: Path) -> None:
    done = cac("demo", "--full", "--out", tmp_path / "study", "--json", "-q", timeout=900)
    assert done.code == 0, done.err
    assert done.json["report"]["patients"] == FULL_PATIENTS
    assert set(done.json["report"]["gaps"]) == NOT_WITHOUT_SCANS
    assert Path(done.json["report"]["page"]).is_file()
