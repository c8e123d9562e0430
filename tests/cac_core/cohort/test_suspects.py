"""A study that ends runs is known to the next run."""

from __future__ import annotations

from pathlib import Path

import pytest

from cac_core.cohort.suspects import STRIKES, SuspectNotes
from cac_core.cohort.warehouse import Warehouse
from tests.builders.rows import digest, key


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_notes_outlive_the_run_and_are_cleared(tmp_path: Path, kind: str) -> None:
    url = str(tmp_path / "wh") if kind == "folder" else f"memory://{tmp_path.name}"

    def notes() -> SuspectNotes:
        return Warehouse(url).suspects("m")

    study, files = key(1), digest("files")
    assert notes().strikes(study, files) == 0
    for _ in range(STRIKES):
        notes().add(study, files)
    notes().add(key(2), files)
    assert notes().strikes(study, files) == STRIKES
    assert notes().strikes(study, digest("other files")) == 0, "corrected files begin anew"
    assert Warehouse(url).suspects("another model").strikes(study, files) == 0
    assert Warehouse(url).publish("m") == 0
    notes().clear([study])
    assert (notes().strikes(study, files), notes().strikes(key(2), files)) == (0, 1)
    notes().clear([key(2), key(3)])
    assert notes().strikes(key(2), files) == 0
