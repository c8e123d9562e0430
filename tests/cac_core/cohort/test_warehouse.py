"""The warehouse: atomic publishing, the ledger, recovery, locks, clear faults."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import tempfile
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cac_core.cohort import warehouse as warehouse_module
from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import CacError
from schemas.lesion import LESIONS
from schemas.preview import PREVIEWS
from schemas.score import CATEGORY_CHANCES, SCORES
from schemas.table import InvalidTableError
from tests.builders.rows import digest, lesion_row, preview_row, score_row

MODEL = "convlstm-test"


def _scores(*rows: dict[str, object]) -> pa.Table:
    return SCORES.from_rows(rows)


def _lesions(*rows: dict[str, object]) -> pa.Table:
    return LESIONS.from_rows(rows)


def _previews(*rows: dict[str, object]) -> pa.Table:
    return PREVIEWS.from_rows(rows)


def _stage(store: Warehouse, part: str, study: int, **changes: object) -> None:
    """One study with a row in each table."""
    score, lesion, preview = (
        make(study, **changes) for make in (score_row, lesion_row, preview_row)
    )
    store.stage(MODEL, part, _scores(score), _lesions(lesion), _previews(preview))


def _wanted(*rows: dict[str, object]) -> pa.Table:
    names = (
        "study_key",
        "instances_digest",
        "model_digest",
        "protocol_digest",
        "core_version",
    )
    return pa.table({name: [row[name] for row in rows] for name in names})


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "warehouse")


def test_staged_rows_are_invisible_until_published(store: Warehouse) -> None:
    store.stage(MODEL, "run-1", _scores(score_row(1)), _lesions(lesion_row(1)))
    assert store.read(SCORES, MODEL).num_rows == 0
    assert store.publish(MODEL) == 1
    assert store.read(SCORES, MODEL).num_rows == 1
    assert store.read(LESIONS, MODEL).num_rows == 1
    assert store.publish(MODEL) == 0


def test_scores_of_an_earlier_version_have_nulls(store: Warehouse) -> None:
    new = [*CATEGORY_CHANCES, "agatston_low", "agatston_high", "needs_review", "review_reasons"]
    # One table published and one finished, but not published, by the earlier version.
    _stage(store, "run-1", 1)
    store.publish(MODEL)
    _stage(store, "run-2", 2)
    for path in Path(store.url).rglob("scores*.parquet"):
        pq.write_table(pq.ParquetFile(path).read().drop_columns(new), path)
    assert store.columns(SCORES, ["study_key", *new], MODEL)["needs_review"].to_pylist() == [None]
    assert store.publish(MODEL) == 1
    rows = store.read(SCORES, MODEL).to_pylist()
    assert len(rows) == 2
    assert {row[name] for row in rows for name in new} == {None}


def test_published_tables_read_with_plain_duckdb_and_pyarrow(store: Warehouse) -> None:
    store.stage(MODEL, "run-1", _scores(score_row(1), score_row(2)), _lesions())
    store.publish(MODEL)
    found = duckdb.sql(
        f"SELECT model, count(*) FROM read_parquet('{store.url}/scores/**/*.parquet', "
        "hive_partitioning = true) GROUP BY model"
    ).fetchall()
    assert found == [(MODEL, 2)]
    assert pq.read_table(f"{store.url}/scores").column("model").to_pylist() == [MODEL, MODEL]


def test_a_rescored_study_replaces_its_row_and_lesions(store: Warehouse) -> None:
    store.stage(
        MODEL,
        "a",
        _scores(score_row(1), score_row(2)),
        _lesions(lesion_row(1), lesion_row(1, slice_index=9), lesion_row(2)),
    )
    store.publish(MODEL)
    later = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    newer = score_row(1, agatston=99.0, scored_at=later, instances_digest=digest("more"))
    store.stage(MODEL, "b", _scores(newer), _lesions(lesion_row(1, slice_index=3)))
    store.publish(MODEL)
    scores = {row["study_key"]: row for row in store.read(SCORES, MODEL).to_pylist()}
    assert len(scores) == 2
    assert scores[newer["study_key"]]["agatston"] == 99.0
    mine = [
        row["slice_index"]
        for row in store.read(LESIONS, MODEL).to_pylist()
        if row["study_key"] == newer["study_key"]
    ]
    assert mine == [3]


def test_previews_are_staged_published_and_replaced_with_their_scores(store: Warehouse) -> None:
    pictures = _previews(preview_row(1), preview_row(1, slice_index=6), preview_row(2))
    store.stage(MODEL, "a", _scores(score_row(1), score_row(2)), _lesions(), pictures)
    assert store.read(PREVIEWS, MODEL).num_rows == 0
    store.publish(MODEL)
    assert store.read(PREVIEWS, MODEL).num_rows == 3
    newer = score_row(1, scored_at=dt.datetime(2025, 1, 1, tzinfo=dt.UTC))
    store.stage(MODEL, "b", _scores(newer), _lesions(), _previews(preview_row(1, slice_index=9)))
    store.publish(MODEL)
    mine = store.read(PREVIEWS, MODEL, studies=[str(newer["study_key"])]).to_pylist()
    assert store.read(PREVIEWS, MODEL, studies=[]).num_rows == 0
    assert [row["slice_index"] for row in mine] == [9]
    assert store.read(PREVIEWS, MODEL).num_rows == 2
    rejected = score_row(1, status="rejected", reason="no_heart", agatston=None, cac_category=None)
    store.stage(MODEL, "c", _scores(rejected), _lesions(), _previews())
    store.publish(MODEL)
    assert [row["study_key"] for row in store.read(PREVIEWS, MODEL).to_pylist()] == [
        score_row(2)["study_key"]
    ]


def test_previews_of_an_unfinished_shard_are_not_published(store: Warehouse) -> None:
    """The scores of a shard are written last; without them its other rows mean nothing."""
    store.stage(
        MODEL, "a", _scores(score_row(1)), _lesions(lesion_row(1)), _previews(preview_row(1))
    )
    store.stage(
        MODEL, "b", _scores(score_row(2)), _lesions(lesion_row(2)), _previews(preview_row(2))
    )
    next(Path(store.url).rglob("scores-b.parquet")).unlink()
    store.publish(MODEL)
    assert store.read(PREVIEWS, MODEL)["study_key"].to_pylist() == [score_row(1)["study_key"]]
    assert store.read(LESIONS, MODEL)["study_key"].to_pylist() == [score_row(1)["study_key"]]
    assert not list(Path(store.url).rglob("*-b.parquet"))


def test_full_parts_are_left_alone(store: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warehouse_module, "_PART_BYTES", 1)
    for study in (1, 2, 3):
        _stage(store, str(study), study)
        store.publish(MODEL)
    parts = sorted(Path(store.url).glob("previews/**/*.parquet"))
    assert [path.name for path in parts] == [f"previews-{n:05d}.parquet" for n in range(3)]
    before = {path: path.read_bytes() for path in parts}
    again = _previews(preview_row(2, slice_index=7), preview_row(4))
    store.stage(MODEL, "b", _scores(score_row(2), score_row(4)), _lesions(), again)
    store.publish(MODEL)
    changed = [path.name for path in parts if path.read_bytes() != before[path]]
    assert changed == ["previews-00001.parquet"], "a study stays in its part"
    found = [(r["study_key"], r["slice_index"]) for r in store.read(PREVIEWS, MODEL).to_pylist()]
    expected = [(1, 5), (2, 7), (3, 5), (4, 5)]
    assert sorted(found) == sorted((score_row(s)["study_key"], i) for s, i in expected)
    assert not [r for r in store.read(LESIONS, MODEL).to_pylist() if r["study_key"] == found[1][0]]


def test_a_rescored_protocol_leaves_the_other_alone(store: Warehouse) -> None:
    store.stage(
        MODEL, "a", _scores(score_row(1)), _lesions(lesion_row(1)), _previews(preview_row(1))
    )
    store.publish(MODEL)
    _stage(store, "b", 1, protocol_digest="q" * 16)
    store.publish(MODEL)
    for spec in (SCORES, LESIONS, PREVIEWS):
        assert store.read(spec, MODEL)["protocol_digest"].to_pylist() == ["p" * 16, "q" * 16]


def test_the_next_publication_completes_an_interrupted_one(
    store: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.stage(
        MODEL, "a", _scores(score_row(1)), _lesions(lesion_row(1)), _previews(preview_row(1))
    )

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Warehouse, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            store.publish(MODEL)
    assert store.read(SCORES, MODEL).num_rows == 0
    assert store.publish(MODEL) == 1
    for spec in (SCORES, LESIONS, PREVIEWS):
        assert store.read(spec, MODEL).num_rows == 1


def test_scores_of_two_protocols_coexist(store: Warehouse) -> None:
    store.stage(MODEL, "a", _scores(score_row(1)), _lesions(lesion_row(1)))
    store.stage(
        MODEL,
        "b",
        _scores(score_row(1, protocol_digest="q" * 16)),
        _lesions(lesion_row(1, protocol_digest="q" * 16)),
    )
    store.publish(MODEL)
    assert store.read(SCORES, MODEL).num_rows == 2
    assert store.read(LESIONS, MODEL).num_rows == 2


def test_pending_is_what_the_ledger_lacks(store: Warehouse) -> None:
    done, failed = score_row(1), score_row(2, status="failed", reason="timeout")
    store.stage(MODEL, "a", _scores(done, failed), _lesions())
    store.publish(MODEL)
    new = score_row(3)
    changed = done | {"study_key": score_row(4)["study_key"]}
    wanted = _wanted(done, failed, new, changed)
    pending = store.pending(wanted, MODEL)["study_key"].to_pylist()
    assert sorted(pending) == sorted([new["study_key"], changed["study_key"]])
    retried = store.pending(wanted, MODEL, retry_failed=True)["study_key"].to_pylist()
    assert sorted(retried) == sorted([*pending, failed["study_key"]])


@pytest.mark.parametrize(
    "column", ["instances_digest", "model_digest", "protocol_digest", "core_version"]
)
def test_every_part_of_the_identity_matters(store: Warehouse, column: str) -> None:
    row = score_row(1)
    store.stage(MODEL, "a", _scores(row), _lesions())
    store.publish(MODEL)
    assert store.pending(_wanted(row), MODEL).num_rows == 0
    assert store.pending(_wanted(row | {column: digest("other")}), MODEL).num_rows == 1


def test_rows_that_break_the_schema_are_not_written(store: Warehouse) -> None:
    with pytest.raises(InvalidTableError, match="agatston"):
        store.stage(MODEL, "a", _scores(score_row(1, agatston=-1.0)), _lesions())
    assert not list(Path(store.url).rglob("*.parquet"))


def test_the_probe_leaves_no_trace(tmp_path: Path) -> None:
    Warehouse(tmp_path / "a" / "b" / "c").check_writable()
    assert not (tmp_path / "a").exists()


def test_an_unwritable_folder_is_a_clear_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CacError, match="cannot be written"):
        Warehouse(tmp_path / "file" / "warehouse").check_writable()
    assert (tmp_path / "file").read_text() == "mine"


def test_a_truncated_file_is_named(store: Warehouse) -> None:
    store.stage(MODEL, "a", _scores(score_row(1)), _lesions())
    store.publish(MODEL)
    path = next(Path(store.url).glob("scores/**/*.parquet"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CacError, match="cannot be read"):
        store.read(SCORES, MODEL)


def _hold(url: str, held: object, release: object) -> None:
    with Warehouse(url).lock():
        held.set()  # type: ignore[attr-defined]
        release.wait(20)  # type: ignore[attr-defined]


def test_one_writer_at_a_time(store: Warehouse) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(store.url, held, release))
    other.start()
    assert held.wait(20)
    with pytest.raises(CacError, match="Another run"), store.lock():
        pass
    release.set()
    other.join(20)
    with store.lock():
        pass


def test_a_memory_url_works_like_a_folder() -> None:
    store = Warehouse("memory://warehouse-test")
    store.check_writable()
    store.stage(MODEL, "a", _scores(score_row(1)), _lesions(lesion_row(1)))
    assert store.publish(MODEL) == 1
    assert store.models() == (MODEL,)
    assert store.read(SCORES, MODEL).num_rows == 1


@pytest.mark.parametrize("where", ["folder", "memory"])
def test_a_page_is_written_below_reports_and_replaced(tmp_path: Path, where: str) -> None:
    url = f"{tmp_path}/wh" if where == "folder" else "memory://warehouse-pages"
    store = Warehouse(url)
    places = {store.write_page("archive/index.html", text) for text in ("<p>old", "<p>näw")}
    (place,) = places
    assert place.endswith("reports/archive/index.html")
    with fsspec.open(f"{url}/reports/archive/index.html", "rb") as stream:
        assert stream.read().decode("utf-8") == "<p>näw"
    assert not store.exists(), "a page is no table"


def test_metadata_of_columns_is_in_the_file(store: Warehouse) -> None:
    store.stage(MODEL, "a", _scores(score_row(1)), _lesions())
    store.publish(MODEL)
    schema = pq.read_schema(next(Path(store.url).glob("scores/**/*.parquet")))
    assert schema.field("heart_volume_ml").metadata[b"unit"] == b"ml"
    assert schema.field("agatston").metadata[b"description"]


_ODD_NAMES = (
    "s [2020]",
    "wh*",
    "sub::dir",
    "a?b",
    "~",
    "$HOME",
    "{a,b}",
    "file:",
    "lesions-x",
    "%41",
)
_FOLDER_NAMES = st.text(
    st.characters(categories=("L", "M", "N", "P", "S", "Zs"), exclude_characters="/"), min_size=1
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)


def _check_round_trip(folder: Path) -> None:
    """Stage, publish and read in a warehouse whose neighbours have tempting names."""
    store = Warehouse(folder)
    _stage(store, "run-00001", 1)
    _stage(store, "run-00001b", 2)
    assert store.publish(MODEL) == 2
    again = Warehouse(str(folder))
    assert again.exists() and again.models() == (MODEL,)
    keys = [score_row(study)["study_key"] for study in (1, 2)]
    for spec in (SCORES, LESIONS, PREVIEWS):
        assert sorted(again.read(spec, MODEL)["study_key"].to_pylist()) == sorted(keys)
    assert not list((folder / "_staging").rglob("*.parquet"))
    assert again.pending(_wanted(score_row(1), score_row(3)), MODEL).num_rows == 1
    _stage(again, "run-00002", 1, agatston=5.0)
    again.publish(MODEL)
    assert again.read(SCORES, MODEL).num_rows == 2
    assert again.read(LESIONS, MODEL).num_rows == 2


@pytest.fixture(scope="module")
def among_neighbours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of warehouses that the odd names would fit as patterns."""
    folder = tmp_path_factory.mktemp("warehouses")
    for number, other in enumerate(("s 2", "wh1", "dir", "axb", "a", "s [2020]0"), start=10):
        Warehouse(folder / other).replace(SCORES, _scores(score_row(number)), MODEL)
    return folder


@pytest.mark.parametrize("name", _ODD_NAMES)
def test_a_warehouse_path_is_taken_literally(
    name: str, among_neighbours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _check_round_trip(among_neighbours / name)
    # A relative path means the same.
    monkeypatch.chdir(among_neighbours)
    assert Warehouse(name).read(SCORES, MODEL).num_rows == 2


@pytest.mark.slow
@given(name=_FOLDER_NAMES)
@settings(max_examples=20, deadline=None)
def test_any_printable_path_works(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _check_round_trip(Path(folder, name))


@pytest.mark.parametrize("model", ["../../out", "a/b", "..", "", "a\\b", ".hidden"])
def test_a_model_id_cannot_leave_the_folder(store: Warehouse, model: str) -> None:
    with pytest.raises(CacError, match="not the id of a model"):
        store.stage(model, "run-00001", _scores(score_row(1)), _lesions())
    with pytest.raises(CacError, match="not the id of a model"):
        store.replace(SCORES, _scores(score_row(1)), model)
    assert not store.exists()


def test_newer_columns_of_an_older_table_are_null(store: Warehouse, tmp_path: Path) -> None:
    store.replace(SCORES, _scores(score_row(1)), MODEL)
    (path,) = (tmp_path / "warehouse").rglob("scores.parquet")
    table = pq.read_table(path, partitioning=None)
    optional = [column.name for column in SCORES.columns if column.nullable][:2]
    pq.write_table(table.drop_columns(optional), path)
    rows = store.read(SCORES, MODEL)
    assert rows.column_names == SCORES.arrow_schema.names and rows.num_rows == 1
    assert all(rows[name].null_count == 1 for name in optional)
    pq.write_table(table.drop_columns(["study_key"]), path)
    with pytest.raises(CacError, match="does not fit this version"):
        store.read(SCORES, MODEL)
