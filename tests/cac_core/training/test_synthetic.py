"""Generated training studies: names, scans, and the digest of the generator code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cac_core.errors import TrainingDataError, UsageError
from cac_core.model.weights import WeightsManifest
from cac_core.phantom.analytic.acquisition import draw_external_settings
from cac_core.phantom.analytic.scan import synthesise_scan
from cac_core.phantom.annotated import AnnotatedScan
from cac_core.training import sample_store as prepare_module
from cac_core.training import synthetic as training_scans
from cac_core.training import train as train_module
from cac_core.training.sample_store import TrainingData, prepare_samples
from cac_core.training.samples import SampleFiles
from cac_core.training.synthetic import (
    GENERATOR_FILES,
    IMPLANTED,
    MESHED,
    SYNTHETIC,
    generator_digest,
    hosts_of,
    implanted_names,
    made_table,
    synthetic_names,
)
from cac_core.training.table import write_training_table
from cac_core.training.train import initial_weights
from flows.cli.options import console
from flows.runtime.progress import RunProgress
from schemas.training import TRAINING_SET

QUIET = RunProgress(console, quiet=True)


def row(study: str) -> dict[str, str]:
    return {"study": study, "annotation": "truth", "reader": "truth", "patient": "P", "site": ""}


def data_in(folder: Path, real_chests: Path | None = None) -> TrainingData:
    return TrainingData(folder / "table.csv", samples=folder, real_chests=real_chests)


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table.to_pylist()
    return found


@pytest.mark.slow
def test_a_low_dose_study_is_scanned_at_five_millimetres(tmp_path: Path) -> None:
    rows = rows_of(made_table(synthetic_names(2, 41, low_dose=True), "truth", None, QUIET))
    assert [row["study"] for row in rows] == ["synthetic:41:low-dose", "synthetic:42:low-dose"]
    assert len({row["patient"] for row in rows}) == 2
    samples = prepare_samples(rows[:1], data_in(tmp_path), QUIET)
    expected = draw_external_settings(np.random.default_rng(41))
    assert samples[0].spacing_mm.tolist() == [5.0, *2 * [expected.pixel_spacing_mm]]


@pytest.mark.slow
def test_every_balanced_study_has_plaques(tmp_path: Path) -> None:
    names = synthetic_names(2, 41, low_dose=True, balanced=True)
    assert names == ["synthetic:41:teaching:low-dose", "synthetic:42:teaching:low-dose"]
    rows = rows_of(made_table(names, "truth", None, QUIET))
    assert all(row["cac_category"] != "0" for row in rows)
    samples = prepare_samples(rows[:1], data_in(tmp_path), QUIET)
    assert samples[0].spacing_mm[0] == 5.0 and (samples[0].calcium == 1).any()


@pytest.mark.slow
def test_all_studies_implanted_in_a_chest_are_one_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, Path]] = []

    def variant(host: str, seed: int, data: Path, *, varied: bool) -> AnnotatedScan:
        assert varied  # the plain look is that of the test sets
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
    samples = prepare_samples(rows[:1], data_in(tmp_path, tmp_path), QUIET)
    assert samples[0].hu.any()
    assert asked[-1] == ("crop", 7, tmp_path) and len(asked) == 5


@pytest.mark.slow
def test_all_studies_of_a_mesh_are_one_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, int]] = []

    def scan(heart: str, host: str, seed: int, data: Path, *, varied: bool) -> AnnotatedScan:
        assert varied
        asked.append((heart, host, seed))
        return synthesise_scan(seed)

    monkeypatch.setattr(training_scans, "meshed_scan", scan)
    names = implanted_names(1, 7, ["crop", "siemens"], ["male"])
    assert names == ["meshed:male:crop:7", "meshed:male:siemens:7"]
    rows = rows_of(made_table(names, "truth", tmp_path, QUIET))
    assert [(row["patient"], row["site"]) for row in rows] == [
        ("mesh-male", "crop"),
        ("mesh-male", "siemens"),
    ]
    assert asked == [("male", "crop", 7), ("male", "siemens", 7)]
    assert hosts_of(rows) == ["crop", "mesh-male", "siemens"]


@pytest.mark.slow
def test_an_implanted_study_is_the_variant_of_that_seed(tmp_path: Path, shared_data: Path) -> None:
    samples = prepare_samples([row("implanted:crop:7")], data_in(tmp_path, shared_data), QUIET)
    assert samples[0].spacing_mm[0] == 5.0
    with pytest.raises(UsageError, match="--data"):
        prepare_samples([row("implanted:crop:8")], data_in(tmp_path), QUIET)


def test_a_run_states_its_real_chests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(train_module, "verify_weights", lambda folder: earlier)
    monkeypatch.setattr(train_module, "_initial_network", lambda *_: None)
    monkeypatch.setattr(train_module, "prepare_samples", lambda *_: SampleFiles([]))
    monkeypatch.setattr(train_module, "train_network", lambda *_, data, **__: {"data": data})
    for begin, expected in (
        (None, ["labelled", "siemens"]),
        (tmp_path, ["crop", "labelled", "siemens"]),
    ):
        initial = initial_weights("calcium", begin)
        table = TrainingData(tmp_path / "table.csv")
        record = train_module.train("calcium", table, tmp_path, QUIET, initial=initial)
        assert record["data"]["hosts"] == expected


def test_a_sample_of_another_generator_is_not_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    made = []
    monkeypatch.setattr(
        prepare_module, "_prepare_sample", lambda row, path, *_: made.append(path.touch())
    )
    phantom = tmp_path / "phantom"
    for name in {name for names in GENERATOR_FILES.values() for name in names}:
        (phantom / name).parent.mkdir(parents=True, exist_ok=True)
        (phantom / name).write_text("", encoding="utf-8")
    monkeypatch.setattr(training_scans.phantom, "__file__", str(phantom / "__init__.py"))
    digest = training_scans._files_digest
    request.addfinalizer(digest.cache_clear)
    data = data_in(tmp_path / "samples")
    for text, expected in (("one", 1), ("one", 1), ("another", 2), ("one", 2)):
        (phantom / "analytic" / "scan.py").write_text(text, encoding="utf-8")
        digest.cache_clear()
        prepare_samples([row("synthetic:4")], data, QUIET)
        assert len(made) == expected


@pytest.mark.parametrize(
    ("study", "entry"),
    [
        (SYNTHETIC, "analytic/scan.py"),
        (IMPLANTED, "heldout/implanted.py"),
        (MESHED, "meshes/scans.py"),
    ],
)
def test_the_generator_digest_covers_all_code_that_makes_the_scans(study: str, entry: str) -> None:
    """Follow the imports within `cac_core.phantom` from the modules that training calls."""
    folder = Path(training_scans.phantom.__file__).parent
    found: set[str] = set()
    pending = {entry, "annotated.py", "reader.py", "truth.py"}
    while pending:
        name = pending.pop()
        found.add(name)
        source = (folder / name).read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module:
                parts = node.module.removeprefix("cac_core.phantom").split(".")
                module = "/".join(parts[1:]) + ".py"
                if node.module.startswith("cac_core.phantom.") and (folder / module).exists():
                    pending |= {module} - found
        # Data files that a module reads beside itself.
        pending_data = re.findall(r'"(\w+\.(?:toml|json))"', source)
        found |= {str(Path(name).with_name(data)) for data in pending_data}
    assert found == set(GENERATOR_FILES[study])
    assert list(GENERATOR_FILES[study]) == sorted(GENERATOR_FILES[study])
    assert not any(name.startswith(("archive", "registry")) for name in found)


def test_each_kind_of_study_has_a_digest_of_its_own() -> None:
    names = ("synthetic:4", "implanted:crop:4", "meshed:male:crop:4")
    assert len({generator_digest(name) for name in names}) == 3
    assert generator_digest("synthetic:4") == generator_digest("synthetic:5:low-dose")


@pytest.mark.parametrize(
    "study",
    [
        "synthetic:",
        "synthetic:x",
        "synthetic:4:low-dose:teaching",
        "implanted:crop",
        "meshed:crop:4",
    ],
)
def test_a_malformed_study_name_is_reported(tmp_path: Path, study: str) -> None:
    with pytest.raises(TrainingDataError, match=study):
        prepare_samples([row(study)], data_in(tmp_path), QUIET)
