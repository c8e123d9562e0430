"""Results in a store: replaced as in a folder, and files of others are never touched."""

from __future__ import annotations

import uuid

import pytest

from cac_core.cohort.warehouse import Warehouse
from cac_core.errors import UsageError
from flows.runtime.results_folder import LIST, write_files
from flows.runtime.results_in_store import require_replaceable_in_store, results_in_store


def _write(store: Warehouse, files: dict[str, bytes]) -> None:
    with results_in_store(store, "cohort", "cohort report") as folder:
        write_files(files, folder)


def test_a_result_replaces_the_last_one_and_leaves_other_files() -> None:
    store = Warehouse(f"memory://{uuid.uuid4().hex}")
    _write(store, {"index.html": b"1", "figures/[a].png": b"1", "old.csv": b"1"})
    store.write_result("cohort", "notes.txt", b"of somebody")
    _write(store, {"index.html": b"2", "figures/[a].png": b"1"})
    found = store.read_results("cohort")
    assert found.pop(LIST)
    assert found == {"index.html": b"2", "figures/[a].png": b"1", "notes.txt": b"of somebody"}


def test_what_others_wrote_or_changed_is_refused_by_its_url() -> None:
    store = Warehouse(f"memory://{uuid.uuid4().hex}")
    _write(store, {"index.html": b"1"})
    store.write_result("cohort", "index.html", b"edited")
    with pytest.raises(UsageError, match="was changed") as caught:
        require_replaceable_in_store(store, "cohort", "cohort report")
    assert f"{store.url}/reports/cohort/index.html" in str(caught.value)
    with pytest.raises(UsageError, match="was changed"):
        _write(store, {"index.html": b"2"})
    assert store.read_results("cohort")["index.html"] == b"edited"
    other = Warehouse(f"memory://{uuid.uuid4().hex}")
    other.write_result("cohort", "mine.txt", b"x")
    with pytest.raises(UsageError, match="holds something else"):
        require_replaceable_in_store(other, "cohort", "cohort report")


def test_an_upload_that_was_cut_off_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Warehouse(f"memory://{uuid.uuid4().hex}")
    _write(store, {"a.csv": b"1", "index.html": b"1"})
    put = Warehouse.write_result

    def cut(self: Warehouse, name: str, path: str, data: bytes) -> None:
        if path == "index.html":
            raise KeyboardInterrupt
        put(self, name, path, data)

    monkeypatch.setattr(Warehouse, "write_result", cut)
    with pytest.raises(KeyboardInterrupt):
        _write(store, {"a.csv": b"2", "index.html": b"2"})
    monkeypatch.undo()
    assert store.read_results("cohort")["index.html"] == b"1"
    _write(store, {"a.csv": b"3", "index.html": b"3"})
    assert store.read_results("cohort")["index.html"] == b"3"
