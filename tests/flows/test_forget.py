"""A withdrawn patient leaves every table and file, and does not come back."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin
from rich.console import Console

from cac_core.cohort.forgotten import Forgotten
from cac_core.cohort.leftovers import Search
from cac_core.cohort.warehouse import Warehouse
from cac_core.cohort.warehouse_files import WarehouseFiles
from cac_core.errors import UsageError
from cac_core.keys import Keyring
from cac_core.phantom.registry.dialects import write_extracts
from cac_core.phantom.registry.records import make_registry
from flows.export import export_linked
from flows.forget import ForgetRequest, forget
from flows.index import index
from flows.linkage import link_cohort
from flows.request import LinkageRequest
from flows.runtime.progress import RunProgress
from flows.runtime.results_folder import results_folder
from schemas.forgotten import FORGOTTEN
from schemas.instance import INSTANCES
from schemas.lesion import LESIONS
from schemas.linkage import FLOW, MATCHES
from schemas.linked import LINKED
from schemas.preview import PREVIEWS
from schemas.results import ESTIMATES
from schemas.run import RUNS
from schemas.score import SCORES
from schemas.series import SERIES
from tests.builders.ct_series import write_ct_series
from tests.builders.registries import fill_warehouse
from tests.builders.rows import lesion_row, preview_row
from tests.flows.conftest import SECRET

KEYRING = Keyring(SECRET.encode())
QUIET = RunProgress(Console(file=io.StringIO()), quiet=True)
MODEL = "test-1"


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linked warehouse with its extracts beside it."""
    folder = tmp_path_factory.mktemp("linked")
    registry = make_registry(30, 8)
    write_extracts(registry, "flat", folder / "extracts", 1)
    fill_warehouse(folder / "wh", registry, KEYRING)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CAC_LINKAGE_KEY", SECRET)
        _link(folder / "wh", folder / "extracts")
    return folder


def _link(warehouse: Path, extracts: Path) -> None:
    (mapping,) = extracts.glob("*.toml")
    link_cohort(LinkageRequest(str(warehouse), mapping=str(mapping)))


@pytest.fixture
def site(linked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that warehouse, with an export, a report, a log, staged rows and pictures."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    shutil.copytree(linked / "wh", tmp_path / "wh")
    store = Warehouse(tmp_path / "wh")
    row, other = store.read(LINKED).to_pylist()[:2]
    keys = row["study_key"], other["study_key"]
    rows = [lesion_row(study_key=key) for key in keys]
    store.replace(LESIONS, LESIONS.from_rows(rows), MODEL)
    pictures = [preview_row(study_key=key, image_png=_png(key)) for key in keys]
    store.replace(PREVIEWS, PREVIEWS.from_rows(pictures), MODEL)
    score = store.read(SCORES, MODEL, studies=[keys[0]])
    store.stage(MODEL, "left", score, LESIONS.empty())
    store.suspects(MODEL).add(keys[0], "d" * 64)
    estimate = {"analysis": "a", "statistic": "s", "value": 1.0, "n": 1}
    store.replace(ESTIMATES, ESTIMATES.from_rows([estimate]))
    export_linked(str(tmp_path / "wh"), None, ["linked"], "csv", tmp_path / "out")
    with results_folder(store.folder / "reports" / "cohort", "cohort report") as aside:
        (aside / "index.html").write_text("all patients")
        (aside / "studies").mkdir()
        for key in keys:
            (aside / "studies" / f"{key}.html").write_text(f"study {key}")
    (tmp_path / "cac.toml").write_text('[logging]\nfile = "log.jsonl"\n')
    lines = [json.dumps({"event": "study", "study_key": key}) + "\n" for key in keys]
    (tmp_path / "log.jsonl").write_text("".join(lines))
    return tmp_path


def _png(text: str) -> bytes:
    """A picture with a text in its metadata."""
    stream, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("Comment", text)
    Image.new("L", (4, 4)).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def _request(site: Path, *identifiers: str, keys: tuple[str, ...] = ()) -> ForgetRequest:
    return ForgetRequest(identifiers, keys, str(site / "wh"), str(site / "cac.toml"))


def _patient(site: Path) -> tuple[str, str, str]:
    """Identifier, patient key and study key of the first patient of the cohort."""
    row = Warehouse(site / "wh").read(LINKED).to_pylist()[0]
    for path in (site / "wh" / "registry" / "clinical").glob("*.parquet"):
        for value in pq.read_table(path)["patient_id"].to_pylist():
            if KEYRING.patient_key(value) == row["patient_key"]:
                return value, row["patient_key"], row["study_key"]
    raise AssertionError("a patient of the cohort is in the registry")


def _files_with(folder: Path, *texts: str) -> list[Path]:
    """Files whose bytes, or values as Parquet, hold one of the texts."""
    found = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes() + path.name.encode()
        if path.suffix == ".parquet":
            data += str(pq.read_table(path, partitioning=None).to_pylist()).encode()
        if any(text.encode() in data for text in texts):
            found.append(path)
    return found


def test_nothing_is_left_of_a_patient(site: Path) -> None:
    identifier, patient, study = _patient(site)
    others = Warehouse(site / "wh").read(SCORES, MODEL).num_rows
    places = {path.name for path in _files_with(site, identifier, patient, study)}
    assert {"linked.parquet", "log.jsonl", f"{study}.html"} <= places
    planned = forget(_request(site, f" {identifier.lower()} "), QUIET, dry_run=True)
    assert {path.name for path in _files_with(site, identifier, patient, study)} == places
    done = forget(_request(site, f" {identifier.lower()} "), QUIET, dry_run=False)
    assert (done.left, done.not_searched, done.patients) == ([], [], 1)
    assert _files_with(site, identifier, patient, study) == []
    assert planned.rows.items() <= done.rows.items()
    for name in ("scores", "lesions", "previews", "instances", "linked", "flow", "staging"):
        assert done.rows[name], name
    store = Warehouse(site / "wh")
    assert not store.has(ESTIMATES)
    assert not store.has(MATCHES)
    studies = done.studies
    assert store.read(SCORES, MODEL).num_rows == others - studies
    assert sorted(done.to_make_again) == [str(site / "out"), str(site / "wh/reports/cohort")]
    assert "cac report" in (site / "wh/reports/cohort/index.html").read_text()
    assert len((site / "log.jsonl").read_text().splitlines()) == 1
    (run,) = (row for row in store.read(RUNS).to_pylist() if row["job"] == "forget")
    assert json.loads(run["reasons"])["left"] == 0
    assert identifier not in json.dumps(run, default=str)


def test_a_patient_does_not_come_back_with_the_next_linkage(site: Path, linked: Path) -> None:
    identifier, patient, study = _patient(site)
    before = Warehouse(site / "wh").read(FLOW).num_rows
    forget(_request(site, identifier), QUIET, dry_run=False)
    shutil.rmtree(site / "wh" / "registry")  # as after a change of the extracts: all are read anew
    _link(site / "wh", linked / "extracts")
    assert _files_with(site / "wh", identifier, patient, study) == []
    assert Warehouse(site / "wh").read(FLOW).num_rows == before - 1


def test_an_interrupted_removal_is_completed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identifier, patient, study = _patient(site)
    write, calls = WarehouseFiles.write_table, []

    def stop(self: WarehouseFiles, path: object, table: pa.Table) -> None:
        calls.append(path)
        if len(calls) > 5:
            raise KeyboardInterrupt
        write(self, path, table)  # type: ignore[arg-type]

    with monkeypatch.context() as killed:
        killed.setattr(WarehouseFiles, "write_table", stop)
        with pytest.raises(KeyboardInterrupt):
            forget(_request(site, identifier), QUIET, dry_run=False)
    assert _files_with(site, study)
    done = forget(_request(site, keys=(patient,)), QUIET, dry_run=False)
    assert done.left == []
    assert _files_with(site, identifier, patient, study) == []


def test_files_of_a_forgotten_patient_are_not_indexed_again(tmp_path: Path) -> None:
    archive, warehouse = tmp_path / "archive", tmp_path / "wh"
    mine = {"PatientID": "P 12345", "StudyInstanceUID": "2.25.11"}
    other = {"PatientID": "P67890", "StudyInstanceUID": "2.25.12"}
    write_ct_series(archive / "a", n_slices=3, header=mine)
    write_ct_series(archive / "b", n_slices=3, series=2, header=other)
    index([str(archive)], str(warehouse), None, QUIET)
    store = Warehouse(warehouse)
    request = ForgetRequest(("p12345",), (), str(warehouse), None)
    done = forget(request, QUIET, dry_run=False)
    assert done.left == []
    assert done.rows["instances"] == store.read(INSTANCES).num_rows == 3
    later = mine | {"StudyInstanceUID": "2.25.13"}
    without = {0: {"PatientID": None}}
    write_ct_series(archive / "c", n_slices=2, series=3, header=later, changes=without)
    for opened in (5, 0):
        found = index([str(archive)], str(warehouse), None, QUIET)
        assert (found.files, found.files_opened) == (8, opened)
        assert found.file_reasons == {"forgotten": 5}
    assert _files_with(warehouse, KEYRING.patient_key("P12345")) == []
    assert store.read(SERIES).num_rows == 1
    bare = store.read(INSTANCES).filter(pc.field("reason") == "forgotten")
    filled = {name for name in bare.column_names if bare[name].null_count < bare.num_rows}
    assert filled == {"path_key", "size_bytes", "mtime_ns", "reason", "text_policy"}
    assert store.read(FORGOTTEN).num_rows == 2  # the patient and the study


def test_wrong_use_is_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="No patient is named"):
        forget(_request(site, " "), QUIET, dry_run=False)
    with pytest.raises(UsageError, match="--key is not"):
        forget(_request(site, keys=("0f3a",)), QUIET, dry_run=False)
    monkeypatch.setenv("CAC_LINKAGE_KEY", "the secret of another site")
    with pytest.raises(UsageError, match="not the one"):
        forget(_request(site, "P1"), QUIET, dry_run=False)
    assert not Warehouse(site / "wh").has(FORGOTTEN)


def _zip(text: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", f"<w:t>{text}</w:t>")
    return stream.getvalue()


def _parquet(text: str) -> bytes:
    stream = io.BytesIO()
    table = pa.table({"note": [None, f"see {text}."], "n": [1, 2]})
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def _pdf(text: str) -> bytes:
    import typst

    return typst.compile(f"Study {text}".encode())


@pytest.mark.parametrize("make", [str.encode, _png, _zip, _parquet, _pdf])
@pytest.mark.parametrize("what", ["identifier", "key", "uid", "nothing"])
def test_the_search_looks_into_files(make, what: str) -> None:  # type: ignore[no-untyped-def]
    key = KEYRING.patient_key("P12345")
    texts = {"identifier": "P12345", "key": key, "uid": "2.25.77", "nothing": "P123456 2.25.778"}
    forgotten = Forgotten(frozenset({KEYRING.suppression_key(key)}), KEYRING)
    search = Search(forgotten, frozenset({"2.25.77"}), frozenset({"P12345"}))
    assert search.found_in(io.BytesIO(make(texts[what]))) == (what != "nothing")
