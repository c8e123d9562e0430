"""`cac forget` removes the masks of signed readings with their rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from cac_core.cohort.warehouse import Warehouse
from cac_core.reading.readings import read_readings, sign
from flows.forget import ForgetRequest, forget
from flows.runtime.progress import RunProgress
from schemas.lesion import LESIONS
from schemas.score import SCORES
from tests.builders.readings import reading_row
from tests.builders.rows import key, score_row


def test_masks_and_rows_of_a_withdrawn_patient_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAC_LINKAGE_KEY", "a secret used by the tests only")
    store = Warehouse(tmp_path / "wh")
    rows = SCORES.from_rows([score_row(1), score_row(2)])
    store.stage("m", "a", rows, LESIONS.from_rows([]))
    store.publish("m")
    for study in (1, 2):
        sign(store, reading_row(study), f"masks of {key(study)}".encode())
    request = ForgetRequest((), (key("patient 1"),), store.url, None)
    done = forget(request, RunProgress(Console(), quiet=True), dry_run=False)
    assert not done.left and done.rows["signed_readings"] == 1
    assert [row["study_key"] for row in read_readings(store).rows] == [key(2)]
    masks = sorted(path.parent.name for path in (tmp_path / "wh").rglob("*.dcm"))
    assert masks == [key(2)]
