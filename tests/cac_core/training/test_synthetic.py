"""Scans made to be learnt from: what their names mean, and what is kept of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cac_core.errors import TrainingDataError, UsageError
from cac_core.model.weights import WeightsManifest
from cac_core.phantom.analytic.scan import draw_external_settings, synthesise_scan
from cac_core.phantom.annotated import AnnotatedScan
from cac_core.training import run as training
from cac_core.training import synthetic as training_scans
from cac_core.training.run import prepare_samples
from cac_core.training.samples import SampleFiles
from cac_core.training.synthetic import implanted_names, made_table, synthetic_names
from cac_core.training.table import write_training_table
from flows.cli.options import console
from flows.runtime.progress import RunProgress
from schemas.training import TRAINING_SET

QUIET = RunProgress(console, quiet=True)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes take seconds to start; `cac train` in test_cli.py uses them."""
    for module in (training, training_scans):
        monkeypatch.setattr(module, "worker_pool", lambda tasks: ThreadPoolExecutor(1))


def row(study: str) -> dict[str, str]:
    return {"study": study, "annotation": "truth", "reader": "truth", "patient": "P", "site": ""}


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_a_low_dose_study_is_scanned_at_five_millimetres(tmp_path: Path) -> None:
    rows = rows_of(made_table(synthetic_names(2, 41, low_dose=True), "truth", None, QUIET))
    assert [row["study"] for row in rows] == ["synthetic:41:low-dose", "synthetic:42:low-dose"]
    assert len({row["patient"] for row in rows}) == 2
    samples = prepare_samples(rows[:1], tmp_path, tmp_path, None, QUIET)
    expected = draw_external_settings(np.random.default_rng(41))
    assert samples[0].spacing_mm.tolist() == [5.0, *2 * [expected.pixel_spacing_mm]]


def test_a_teaching_study_has_plaques_in_whoever_it_is(tmp_path: Path) -> None:
    names = synthetic_names(2, 41, low_dose=True, teaching=True)
    assert names == ["synthetic:41:teaching:low-dose", "synthetic:42:teaching:low-dose"]
    rows = rows_of(made_table(names, "truth", None, QUIET))
    assert all(row["cac_category"] != "0" for row in rows)
    samples = prepare_samples(rows[:1], tmp_path, tmp_path, None, QUIET)
    assert samples[0].spacing_mm[0] == 5.0 and (samples[0].calcium == 1).any()


def test_all_that_is_implanted_in_a_chest_is_one_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, Path]] = []

    def variant(host: str, seed: int, data: Path) -> AnnotatedScan:
        asked.append((host, seed, data))
        return synthesise_scan(seed)

    monkeypatch.setattr(training_scans, "variant_of", variant)
    names = implanted_names(2, 7, ["crop", "siemens"])
    rows = rows_of(made_table(names, "truth", tmp_path, QUIET))
    assert [row["study"] for row in rows] == [
        f"implanted:{host}:{seed}" for host in ("crop", "siemens") for seed in (7, 8)
    ]
    assert [(row["patient"], row["site"]) for row in rows] == 2 * [("crop", "crop")] + 2 * [
        ("siemens", "siemens")
    ]
    samples = prepare_samples(rows[:1], tmp_path, tmp_path, None, QUIET, tmp_path)
    assert samples[0].hu.any()
    assert asked[-1] == ("crop", 7, tmp_path) and len(asked) == 5


def test_an_implanted_study_is_the_variant_of_that_seed(tmp_path: Path, shared_data: Path) -> None:
    samples = prepare_samples(
        [row("implanted:crop:7")], tmp_path, tmp_path, None, QUIET, shared_data
    )
    assert samples[0].spacing_mm[0] == 5.0
    with pytest.raises(UsageError, match="--data"):
        prepare_samples([row("implanted:crop:8")], tmp_path, tmp_path, None, QUIET)


def test_weights_state_the_chests_that_they_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        row(study) | {"patient": study.split(":")[1], "split": part}
        for study, part in (
            ("implanted:siemens:7", "training"),
            ("synthetic:4", "training"),
            ("implanted:labelled:8", "validation"),
        )
    ]
    write_training_table(tmp_path / "table.csv", TRAINING_SET.from_rows(rows))
    data = {"hosts": ["crop"]}
    earlier = WeightsManifest(tmp_path, "n", "v", "0" * 64, {}, {"calcium": {"data": data}})
    monkeypatch.setattr(training, "verify_weights", lambda folder: earlier)
    monkeypatch.setattr(training, "_first_network", lambda *_: None)
    monkeypatch.setattr(training, "prepare_samples", lambda *_: SampleFiles([]))
    monkeypatch.setattr(training, "train_network", lambda *_, data, **__: {"data": data})
    for begin, expected in (
        (None, ["labelled", "siemens"]),
        (tmp_path, ["crop", "labelled", "siemens"]),
    ):
        record = training.train("calcium", tmp_path / "table.csv", tmp_path, QUIET, begin=begin)
        assert record["data"]["hosts"] == expected


def test_a_sample_of_another_generator_is_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    made = []
    monkeypatch.setattr(training, "_make_sample", lambda row, path, *_: made.append(path.touch()))
    code = tmp_path / "phantom" / "scan.py"
    code.parent.mkdir()
    monkeypatch.setattr(training_scans.phantom, "__file__", str(code.with_name("__init__.py")))
    digest = training_scans.generator_digest
    request.addfinalizer(digest.cache_clear)
    for text, expected in (("one", 1), ("one", 1), ("another", 2), ("one", 2)):
        code.write_text(text, encoding="utf-8")
        digest.cache_clear()
        prepare_samples([row("synthetic:4")], tmp_path / "samples", tmp_path, None, QUIET)
        assert len(made) == expected


@pytest.mark.parametrize(
    "study", ["synthetic:", "synthetic:x", "synthetic:4:low-dose:teaching", "implanted:crop"]
)
def test_a_study_that_cannot_be_made_is_named(tmp_path: Path, study: str) -> None:
    with pytest.raises(TrainingDataError, match=study):
        prepare_samples([row(study)], tmp_path, tmp_path, None, QUIET)
