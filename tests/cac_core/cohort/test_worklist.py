"""Every study is wanted once, under an identity that changes exactly when its score may."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.cohort.worklist import Identity, rejected_unread, wanted_studies, work_orders
from cac_core.dicom.index import ArchiveIndex, index_archive
from cac_core.dicom.selection import select_series
from cac_core.dicom.selection_rules import load_rules
from cac_core.dicom.series import series_table
from cac_core.errors import CacError
from cac_core.keys import Keyring
from schemas.codes import QualityFlag, SeriesReason, Status, StudyReason
from schemas.lesion import LESIONS
from schemas.score import SCORES
from tests.builders.ct_series import write_ct_series
from tests.builders.rows import score_row

RULES = load_rules()
IDENTITY = Identity("a" * 64, "b" * 16, RULES.digest)


def write_study(folder: Path, number: int, **knobs: Any) -> list[Path]:
    """A study with one series that is a CTAC, unless the knobs say otherwise."""
    header = {
        "StudyInstanceUID": f"1.2.3.{number}",
        "PatientID": f"P{number}",
        "StudyDate": "20240517",
        "SeriesDescription": "CTAC",
    } | knobs.pop("header", {})
    return write_ct_series(
        folder, n_slices=40, pixel_spacing_mm=(6.5, 6.5), series=number, header=header, **knobs
    )


def plan(folder: Path) -> tuple[ArchiveIndex, pa.Table]:
    archive = index_archive([folder], Keyring(b"secret"), workers=1)
    series = select_series(series_table(archive.instances), RULES)
    return archive, wanted_studies(archive.instances, series, IDENTITY)


def only(table: pa.Table) -> dict[str, Any]:
    (row,) = table.to_pylist()
    return row


def test_one_row_per_study(tmp_path: Path) -> None:
    write_study(tmp_path / "a", 1)
    write_study(tmp_path / "b", 2, header={"SeriesDescription": "Topogram"})
    _, wanted = plan(tmp_path)
    rows = {row["study_key"]: row for row in wanted.to_pylist()}
    keys = Keyring(b"secret")
    assert rows[keys.study_key("1.2.3.1")]["reason"] is None
    assert rows[keys.study_key("1.2.3.1")]["patient_key"] == keys.patient_key("P1")
    assert rows[keys.study_key("1.2.3.2")]["reason"] == StudyReason.NO_CTAC_SERIES.value


def test_work_orders_hold_the_chosen_files(tmp_path: Path) -> None:
    paths = write_study(tmp_path / "a", 1)
    archive, wanted = plan(tmp_path)
    (order,) = work_orders(wanted, archive.instances, archive.paths)
    assert {stamp.path for stamp in order.files} == {str(path.resolve()) for path in paths}
    assert all(stamp.size_bytes == Path(stamp.path).stat().st_size for stamp in order.files)
    assert rejected_unread(order) is None


def test_paths_do_not_show_in_a_representation(tmp_path: Path) -> None:
    write_study(tmp_path / "Meier^Anna", 1)
    archive, wanted = plan(tmp_path)
    (order,) = work_orders(wanted, archive.instances, archive.paths)
    assert "Meier" not in repr(order)


def test_unread_studies_say_why(tmp_path: Path) -> None:
    write_study(tmp_path / "b", 2, header={"SeriesDescription": "Topogram"})
    archive, wanted = plan(tmp_path)
    (order,) = work_orders(wanted, archive.instances, archive.paths)
    result = rejected_unread(order)
    assert result is not None
    assert result.score["status"] == Status.REJECTED.value
    assert result.score["detail"] == f"{SeriesReason.LOCALIZER.value} 1"


def test_identity_follows_the_instances(tmp_path: Path) -> None:
    write_study(tmp_path / "a", 1)
    before = only(plan(tmp_path)[1])
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    assert only(plan(tmp_path)[1])["instances_digest"] == before["instances_digest"]
    next((tmp_path / "elsewhere").iterdir()).unlink()
    assert only(plan(tmp_path)[1])["instances_digest"] != before["instances_digest"]


def test_a_late_series_or_new_rules_bring_a_rejected_study_back(tmp_path: Path) -> None:
    write_study(tmp_path / "b", 2, header={"SeriesDescription": "Topogram"})
    before = only(plan(tmp_path)[1])
    archive = index_archive([tmp_path], Keyring(b"secret"), workers=1)
    series = select_series(series_table(archive.instances), RULES)
    other = dataclasses.replace(IDENTITY, rules_digest="c" * 64)
    ruled = only(wanted_studies(archive.instances, series, other))
    assert ruled["instances_digest"] != before["instances_digest"]


@pytest.mark.parametrize(
    ("changed", "pending"),
    [
        ({}, 0),
        ({"model_digest": "c" * 64}, 1),
        ({"protocol_digest": "d" * 16}, 1),
        ({"core_version": "9.9"}, 1),
    ],
)
def test_the_ledger_is_an_anti_join(tmp_path: Path, changed: dict[str, str], pending: int) -> None:
    write_study(tmp_path / "archive", 1)
    _, wanted = plan(tmp_path / "archive")
    row = only(wanted)
    names = ("study_key", "instances_digest", "model_digest", "protocol_digest", "core_version")
    done = score_row(1, **{name: row[name] for name in names} | changed)
    store = Warehouse(tmp_path / "warehouse")
    store.stage("m", "run-1", SCORES.from_rows([done]), LESIONS.empty())
    store.publish("m")
    assert store.pending(wanted, "m").num_rows == pending


def test_files_that_vanished_from_the_listing(tmp_path: Path) -> None:
    write_study(tmp_path, 1)
    archive, wanted = plan(tmp_path)
    with pytest.raises(CacError, match="no longer lists"):
        work_orders(wanted, archive.instances, {})


def test_missing_attributes_become_flags(tmp_path: Path) -> None:
    write_study(tmp_path, 1, header={"SeriesDescription": "Thorax"})
    archive, wanted = plan(tmp_path)
    (order,) = work_orders(wanted, archive.instances, archive.paths)
    assert QualityFlag.NO_CTAC_EVIDENCE in order.flags


def test_files_that_changed_are_compared_with_the_score(tmp_path: Path) -> None:
    """In place, with the same UIDs; rows of earlier versions get their digest once."""
    paths = write_study(tmp_path / "archive", 1)
    _, wanted = plan(tmp_path / "archive")
    row = only(wanted)
    names = ("study_key", "instances_digest", "model_digest", "protocol_digest", "core_version")
    store = Warehouse(tmp_path / "warehouse")
    done = score_row(1, **{name: row[name] for name in names})
    store.stage("m", "run-1", SCORES.from_rows([done]), LESIONS.empty())
    store.publish("m")
    stamps = ["study_key", "protocol_digest", "files_digest"]
    earlier = store.changed_files(wanted, "m")
    assert earlier["scored_files"].to_pylist() == [None]
    store.restamp("m", earlier.select(stamps))
    assert store.changed_files(wanted, "m").num_rows == 0
    os.utime(paths[3])
    archive, wanted = plan(tmp_path / "archive")
    assert store.pending(wanted, "m").num_rows == 0
    changed = store.changed_files(wanted, "m")
    (order,) = work_orders(changed, archive.instances, archive.paths, archive.roots)
    assert order.scored is not None and order.scored.pixel_digest == done["pixel_digest"]
    assert order.roots == (str(tmp_path / "archive"),)
    store.restamp("m", changed.select(stamps))
    assert store.changed_files(wanted, "m").num_rows == 0
    kept = only(store.read(SCORES, "m"))
    assert {name: kept[name] for name in done} | {"files_digest": kept["files_digest"]} == (
        done | {"files_digest": order.files_digest}
    )


def test_a_study_of_an_archive_that_was_away_is_wanted_again(tmp_path: Path) -> None:
    write_study(tmp_path / "archive", 1)
    _, wanted = plan(tmp_path / "archive")
    names = ("study_key", "instances_digest", "model_digest", "protocol_digest", "core_version")
    identity = {name: only(wanted)[name] for name in names}
    store = Warehouse(tmp_path / "warehouse")
    for reason, pending in (("worker_died", 0), ("timeout", 0), ("archive_unavailable", 1)):
        failed = score_row(1, status="failed", reason=reason, **identity)
        store.stage("m", f"run-{reason}", SCORES.from_rows([failed]), LESIONS.empty())
        store.publish("m")
        assert store.pending(wanted, "m").num_rows == pending, reason
