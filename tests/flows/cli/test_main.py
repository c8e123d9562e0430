"""Command-line errors: one line, an exit code, nothing written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pydicom.data
import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.keys import Keyring
from cac_core.model.weights import verify_weights
from schemas.codes import FileReason, StudyReason
from schemas.score import SCORES
from schemas.series import SERIES
from tests.builders.ct_series import write_ct_series
from tests.builders.networks import write_random_weights
from tests.flows.conftest import SECRET, Cac

COMMANDS = [
    "score",
    "retry",
    "backfill",
    "serve",
    "index",
    "status",
    "forget",
    "schema",
    "key lookup",
    "phantom",
    "demo",
    "evaluate archive",
    "evaluate set",
    "evaluate synthetic",
    "train table",
    "train split",
    "train heart",
    "train calcium",
    "train export",
    "train confidence",
    "train ship",
    "doctor",
]
#: Synthetic studies with coronary and other calcium, bright enough to learn from.
TRAINING_SEEDS = (300011, 300013, 300014)
#: Two series under one UID may be reported by positions, spacing or duplicates.
_MIXED = {
    StudyReason.UNEVEN_SPACING.value,
    StudyReason.MIXED_ACQUISITIONS.value,
    StudyReason.DUPLICATE_POSITIONS.value,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(cac: Cac, command: str) -> None:
    outcome = cac(*command.split(), "--help")
    assert outcome.code == 0
    assert "Example" in outcome.out


def refused(
    cac: Cac, tmp_path: Path, code: int, text: str, *arguments: object, **env: str | None
) -> None:
    """The command ends with the code and one line that holds the text; nothing is written."""
    warehouse = tmp_path / "wh"
    outcome = cac("score", *arguments, "-w", warehouse, **env)
    assert outcome.code == code, outcome.err
    assert text in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1, outcome.err
    assert outcome.out == ""
    assert not warehouse.exists()


def archive_of(tmp_path: Path) -> Path:
    write_ct_series(tmp_path / "archive" / "one", header={"SeriesDescription": "CTAC"})
    return tmp_path / "archive"


def test_no_archive(cac: Cac, tmp_path: Path) -> None:
    refused(cac, tmp_path, 2, "does not exist", tmp_path / "nowhere")
    refused(cac, tmp_path, 2, "No archive is named")


def test_empty_archive(cac: Cac, tmp_path: Path) -> None:
    (tmp_path / "empty" / "below").mkdir(parents=True)
    refused(cac, tmp_path, 2, "is empty", tmp_path / "empty")


def test_archive_without_ct(cac: Cac, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.me").write_text("not an image")
    refused(cac, tmp_path, 2, "holds no CT image among its 1 files", tmp_path / "notes")


def test_unwritable_warehouse(cac: Cac, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("a file where a folder is wanted")
    outcome = cac("score", archive_of(tmp_path), "-w", file / "wh")
    assert outcome.code in (1, 2)
    assert "cannot be written" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1, outcome.err


def test_unknown_setting(cac: Cac, tmp_path: Path) -> None:
    config = tmp_path / "cac.toml"
    config.write_text("[scoring]\nshards = 3\n")
    text = "unknown key `scoring.shards`"
    refused(cac, tmp_path, 2, text, archive_of(tmp_path), "-c", config)


def test_altered_weights(cac: Cac, tmp_path: Path) -> None:
    write_random_weights(tmp_path / "weights")
    file = tmp_path / "weights" / "calcium.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    refused(cac, tmp_path, 1, "altered", archive_of(tmp_path), "-m", tmp_path / "weights")


def test_no_secret(cac: Cac, tmp_path: Path) -> None:
    refused(cac, tmp_path, 2, "openssl rand", archive_of(tmp_path), CAC_LINKAGE_KEY=None)


def test_wrong_limit(cac: Cac, tmp_path: Path) -> None:
    refused(cac, tmp_path, 2, "--limit", archive_of(tmp_path), "--limit", "0")


def test_wrong_option(cac: Cac) -> None:
    outcome = cac("score", "--archives", "x")
    assert outcome.code == 2
    assert "No such option" in outcome.err


def test_a_damaged_study_affects_no_other(cac: Cac, tmp_path: Path) -> None:
    """Each kind of damage once, beside a study that is whole, in one run."""
    archive = tmp_path / "archive"
    names = ("whole", "truncated", "gap", "mixed", "huge")
    uids = {name: f"1.2.{number}" for number, name in enumerate(names)}

    def study(name: str, series: int, folder: str = "", **changes: Any) -> list[Path]:
        header = {
            "SeriesDescription": "CTAC",
            "StudyInstanceUID": uids[name],
            "SeriesInstanceUID": f"{uids[name]}.1",
        } | changes.pop("header", {})
        knobs = {"n_slices": 40, "pixel_spacing_mm": (6.5, 6.5)} | changes
        return write_ct_series(archive / name / folder, series=series, header=header, **knobs)

    study("whole", 1)
    cut = study("truncated", 2)
    cut[7].write_bytes(cut[7].read_bytes()[:-3000])
    study("gap", 3, skip=(17,))
    study("mixed", 4)
    study("mixed", 5, "other", origin_mm=(-100.0, -90.0, -298.5))
    study("huge", 6, header={"Rows": 65535, "Columns": 65535})
    (archive / "zero").write_bytes(b"")
    (archive / "text.dcm").write_text("Not what the suffix says.\n")
    (archive / "loop").symlink_to(archive)

    outcome = cac("score", archive, "-w", tmp_path / "wh", "--json")
    assert outcome.code in (0, 3), outcome.err
    file_reasons = outcome.json["file_reasons"]
    assert file_reasons[FileReason.EMPTY_FILE.value] == 1
    assert file_reasons[FileReason.NOT_DICOM.value] == 1
    (model,) = Warehouse(tmp_path / "wh").models()
    rows = Warehouse(tmp_path / "wh").read(SCORES, model).to_pylist()
    keyring = Keyring(SECRET.encode())
    found = {
        name: next(row["reason"] for row in rows if row["study_key"] == keyring.study_key(uid))
        for name, uid in uids.items()
    }
    # The undamaged one is a ball in a cylinder: what the networks make of it is their affair.
    no_damage = (StudyReason.NO_HEART.value, StudyReason.CONTRAST_ENHANCED.value)
    assert found.pop("whole") in (None, *no_damage)
    assert found.pop("mixed") in _MIXED
    assert found == {
        "truncated": StudyReason.TRUNCATED_PIXEL_DATA.value,
        "gap": StudyReason.MISSING_SLICES.value,
        "huge": StudyReason.TOO_LARGE.value,
    }
    assert len(rows) == len(uids)


@pytest.mark.slow
def test_real_scans_of_many_vendors(cac: Cac, tmp_path: Path, shared_data: Path) -> None:
    outcome = cac("score", shared_data, "-w", tmp_path / "wh", "--json")
    assert outcome.code == 0, outcome.err
    summary = outcome.json
    assert summary["scored"] == 3, "the chests without contrast, with the heart in the field"
    assert summary["rejected"] == summary["studies"] - 3 > 20
    assert summary["reasons"][StudyReason.CONTRAST_ENHANCED.value] == 1
    # Empty UIDs never merge studies: those files belong to none.
    assert summary["file_reasons"][FileReason.MISSING_STUDY_UID.value] >= 20


def test_files_of_pydicom(cac: Cac, tmp_path: Path) -> None:
    outcome = cac("score", Path(pydicom.data.__file__).parent, "-w", tmp_path / "wh", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["failed"] == 0
    assert outcome.json["rejected"] == outcome.json["studies"] > 20


def test_schema_in_both_forms(cac: Cac) -> None:
    assert "agatston" in str(cac("schema", "--json").json["tables"])
    assert cac("schema").out.startswith("# Data dictionary")


def test_the_schema_of_one_table(cac: Cac) -> None:
    shown = cac("schema", "clinical").out
    assert shown.startswith("## `clinical`") and shown.count("## ") == 1
    assert list(cac("schema", "clinical", "--json").json["tables"]) == ["clinical"]
    unknown = cac("schema", "clinicals")
    assert (unknown.code, len(unknown.err.strip().splitlines())) == (2, 1)
    assert "no table clinicals" in unknown.err and "encounters" in unknown.err


def test_index_status_and_lookup(cac: Cac, tmp_path: Path) -> None:
    archive, warehouse = archive_of(tmp_path), tmp_path / "wh"
    first = cac("index", archive, "-w", warehouse, "--json").json
    assert (first["files"], first["files_opened"]) == (24, 24)
    assert cac("index", archive, "-w", warehouse, "--json").json["files_opened"] == 0
    assert cac("status", "-w", warehouse, "--json").json["models"] == {}
    (row,) = Warehouse(warehouse).read(SERIES).to_pylist()
    found = cac("key", "lookup", row["study_key"], archive, "--json").json
    assert len(found["files"]) == 24
    wrong = cac("key", "lookup", "12", archive)
    assert (wrong.code, "32 lower-case" in wrong.err) == (2, True)


def test_status_without_a_warehouse(cac: Cac, tmp_path: Path) -> None:
    outcome = cac("status", "-w", tmp_path / "wh")
    assert outcome.code == 1
    assert "no warehouse" in outcome.err
    assert not (tmp_path / "wh").exists()


def test_doctor(cac: Cac) -> None:
    checks = {check["name"]: check for check in cac("doctor", "--json").json["checks"]}
    assert checks["decoders"]["ok"], checks["decoders"]
    assert checks["weights"]["ok"]
    assert "answers" in checks["Prefect API"]["found"]
    deaf = cac("doctor", "--json", PREFECT_API_URL="http://127.0.0.1:1/api")
    assert not {check["name"]: check for check in deaf.json["checks"]}["Prefect API"]["ok"]
    weak = cac("doctor", "--json", CAC_LINKAGE_KEY="short")
    assert weak.code == 1
    assert "short" not in weak.out


def test_phantom_refuses_a_full_folder(cac: Cac, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    outcome = cac("phantom", tmp_path, "--studies", "1")
    assert outcome.code == 2
    assert "not empty" in outcome.err


def training_table(folder: Path) -> Path:
    """Three synthetic studies with coronary and other calcium, split by hand."""
    lines = ["study,annotation,reader,patient,split"]
    for number, split in zip(TRAINING_SEEDS, ("training", "training", "validation"), strict=True):
        lines.append(f"synthetic:{number},truth,truth,P{number},{split}")
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_train_makes_weights_that_score(cac: Cac, tmp_path: Path) -> None:
    table = training_table(tmp_path)
    for kind in ("heart", "calcium"):
        run = tmp_path / kind
        record = cac("train", kind, table, "--out", run, "--steps", "4", "--json", timeout=600).json
        assert record["steps_done"] == 4
        assert len(record["data"]["split_digest"]) == 64
        assert (run / "curves.csv").exists()
    parts = ("--heart", tmp_path / "heart", "--calcium", tmp_path / "calcium")
    weights = tmp_path / "weights"
    made = cac("train", "export", table, *parts, "--out", weights, "--json", timeout=600).json
    assert made["model"].startswith("convlstm-own-")
    assert made["training"]["calibration"]["scans"] == 1
    refit = ("train", "confidence", table, "--model", weights, "--out", tmp_path / "refitted")
    assert cac(*refit, "--json", timeout=600).json["model"].startswith("convlstm-own-")
    # The same scans and networks, now with the background offset inside.
    fitted, refitted = (
        verify_weights(folder).confidence for folder in (weights, tmp_path / "refitted")
    )
    assert fitted == pytest.approx(refitted, rel=0.01)
    assert "exists already" in cac(*refit).err
    again = cac("train", "ship", table, *parts, "--out", weights)
    assert (again.code, "exists already" in again.err) == (2, True)
    assert "use `cac train export`" in again.err
    other = cac("train", "heart", table, "--out", tmp_path / "heart", "--steps", "5")
    assert (other.code, "other data, settings or network" in other.err) == (1, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study,annotation\n", "holds no row"),
        ("study,annotation\na,b\n", "no column patient, reader"),
        ("study,annotation,reader,patient,split\na,b,c,P,elsewhere\n", "split: isin"),
        (
            "study,annotation,reader,patient,split\n"
            "synthetic:1,truth,r,P,training\nsynthetic:2,truth,r,P,validation\n",
            "has a patient in two parts of the split (training, validation): study synthetic:2",
        ),
        (
            "study,annotation,reader,patient,split\nnowhere,seg.dcm,r,P,training\n",
            "Study nowhere: ",
        ),
    ],
)
def test_train_says_what_is_wrong_with_a_table(
    cac: Cac, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "table.csv").write_text(text, encoding="utf-8")
    found = cac("train", "heart", tmp_path / "table.csv", "--out", tmp_path / "run")
    assert found.code == 1
    assert message in found.err
    assert "Traceback" not in found.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stopped", "reported"), [(True, "Interrupted"), (False, "A fault of the program")]
)
def test_a_signal_reported_as_another_error_is_an_interruption(
    stopped: bool, reported: str
) -> None:
    # A handler that tells us nothing takes the place of ours, as Prefect's does in a flow.
    code = f"""
import os, signal
from flows.cli import main as cli
def run(**options):
    signal.signal(signal.SIGTERM, lambda *_: None)
    if {stopped}:
        os.kill(os.getpid(), signal.SIGTERM)
    raise RuntimeError("Query interrupted")
cli.app = run
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"cac: {reported}")
