"""`cac status --explain` and `cac retry --reason` say why, and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError, UsageError
from flows.cli.options import console
from flows.explain import explain_study
from flows.index import index
from flows.planning import dry_run
from flows.request import ScoringRequest, prepare_scoring
from flows.runtime.progress import RunProgress
from schemas.instance import INSTANCES
from schemas.score import SCORES
from tests.builders.ct_series import write_ct_series
from tests.builders.rows import score_row

QUIET = RunProgress(console, quiet=True)
CTAC = {"SeriesDescription": "CTAC", "StudyInstanceUID": "2.25.21", "KVP": 120}
LUNG = {"SeriesDescription": "Lung 1.0 B70f", "StudyInstanceUID": "2.25.22", "Modality": "NM"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with a CTAC study and one without CT, indexed."""
    folder = tmp_path_factory.mktemp("explained")
    shape: dict[str, Any] = {"n_slices": 40, "spacing_mm": 5.0, "pixel_spacing_mm": (7.0, 7.0)}
    write_ct_series(folder / "archive" / "a", header=CTAC, **shape)
    write_ct_series(folder / "archive" / "b", header=LUNG, n_slices=3, series=2)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CAC_LINKAGE_KEY", "a secret used by the tests only")
        index([str(folder / "archive")], str(folder / "wh"), None, QUIET)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Warehouse:
    return Warehouse(shutil.copytree(made / "wh", tmp_path / "wh"))


def _keys(made: Path, store: Warehouse) -> tuple[str, str]:
    """Keys of the CTAC study and of the other."""
    rows = store.read(INSTANCES).select(["study_key", "Modality"]).to_pylist()
    by_kind = {row["Modality"]: row["study_key"] for row in rows}
    return by_kind["CT"], by_kind["NM"]


def _score(made: Path, store: Warehouse, key: str, **changes: object) -> None:
    """Give a study the score row that a run would give it, but for the changes."""
    prepared = prepare_scoring(ScoringRequest((str(made / "archive"),), store.url))
    from cac_core.cohort.worklist import wanted_studies
    from schemas.series import SERIES

    wanted = wanted_studies(store.read(INSTANCES), store.read(SERIES), prepared.identity)
    (row,) = (row for row in wanted.to_pylist() if row["study_key"] == key)
    names = ("instances_digest", "model_digest", "protocol_digest", "core_version")
    same = {name: row[name] for name in names}
    score = score_row(study_key=key) | same | changes
    store.replace(SCORES, SCORES.from_rows([score]), prepared.weights.model_id)


def test_a_study_that_waits(made: Path, store: Warehouse) -> None:
    key, other = _keys(made, store)
    waits = explain_study(key[:6], store.url, None)
    assert (waits.study_key, waits.state, waits.reason) == (key, "wanted", None)
    assert waits.series[0]["selected"]
    assert "cac score" in waits.what_to_do
    none = explain_study(other, store.url, None)
    assert (none.state, none.reason) == ("wanted", "no_ct_series")
    assert none.series[0]["reason"] == "not_ct"


@pytest.mark.parametrize(
    ("change", "state", "word"),
    [
        ({}, "done", "files, model, protocol and version"),
        ({"protocol_digest": "q" * 16}, "wanted", "protocol has changed"),
        ({"core_version": "0.0.9"}, "wanted", "version of the program"),
        ({"instances_digest": "0" * 64}, "wanted", "files of the study"),
        ({"status": "failed", "reason": "timeout"}, "failed", "time limit"),
        ({"status": "rejected", "reason": "no_heart"}, "rejected", "no plausible heart"),
    ],
)
def test_a_scored_study(
    made: Path, store: Warehouse, change: dict[str, object], state: str, word: str
) -> None:
    key, _ = _keys(made, store)
    _score(made, store, key, **change)
    found = explain_study(key, store.url, None)
    assert found.state == state
    assert any(word in text for text in found.because), found.because
    if state == "failed":
        assert "cac retry" in found.what_to_do


def test_a_study_that_left_the_archive_and_one_that_never_was(made: Path, store: Warehouse) -> None:
    gone = score_row("gone")
    store.replace(SCORES, SCORES.from_rows([gone]), "m")
    assert explain_study(str(gone["study_key"]), store.url, None).state == "skipped"
    with pytest.raises(CacError, match="No study"):
        explain_study("00000000", store.url, None)
    with pytest.raises(UsageError, match="not a study key"):
        explain_study("P12345", store.url, None)


def test_retry_by_reason(made: Path, store: Warehouse) -> None:
    key, _ = _keys(made, store)
    _score(made, store, key, status="failed", reason="timeout", agatston=None, cac_category=None)
    archive = (str(made / "archive"),)

    def planned(*reasons: str) -> int:
        request = ScoringRequest(archive, store.url, retry_failed=True, reasons=reasons)
        return dry_run(request, QUIET).to_score

    assert planned() == planned("timeout") == 1
    assert dry_run(ScoringRequest(archive, store.url), QUIET).to_score == 0
    with pytest.raises(UsageError, match=r"worker_died.*timeout 1"):
        planned("timeout", "worker_died")
