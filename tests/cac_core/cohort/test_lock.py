"""The lock of a warehouse on a disk, on a mount without the system's locks, and in a store."""

from __future__ import annotations

import errno
import os
import threading
import uuid
from pathlib import Path

import pytest

from cac_core.cohort import lock
from cac_core.cohort.warehouse import Warehouse
from cac_core.cohort.warehouse_files import WarehouseFiles
from cac_core.errors import CacError
from schemas.lesion import LESIONS
from schemas.score import SCORES
from tests.builders.rows import lesion_row, score_row

MODEL = "convlstm-test"


def _stage(store: Warehouse) -> None:
    store.stage(MODEL, "a", SCORES.from_rows([score_row(1)]), LESIONS.from_rows([lesion_row(1)]))


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """A warehouse on a network mount, where the system's lock does not exist."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock, "file_system_type", lambda folder: "nfs4")
    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    return Warehouse(tmp_path / "mount")


@pytest.fixture
def memory() -> Warehouse:
    return Warehouse(f"memory://{uuid.uuid4().hex}")


@pytest.fixture(params=["mount", "memory"])
def store(request: pytest.FixtureRequest) -> Warehouse:
    found: Warehouse = request.getfixturevalue(request.param)
    return found


def _leases(store: Warehouse) -> list[str]:
    return store._files.names(store._files.root / lock.LEASES)


def test_a_second_run_is_refused_until_the_first_ends(store: Warehouse) -> None:
    with store.lock():
        with pytest.raises(CacError, match=r"Another run \(.*process \d+\)"):
            store.lock().__enter__()
        _stage(store)
        assert store.publish(MODEL) == 1
    with Warehouse(store.url).lock():
        assert len(_leases(store)) == 1


def test_a_lease_that_is_no_longer_renewed_is_followed_by_another(
    store: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = lock.Lease(WarehouseFiles(store.url), alone=False)
    dead.take()
    with pytest.raises(CacError, match="Another run"), store.lock():
        pass
    monkeypatch.setattr(lock, "EXPIRY_S", -1.0)
    heir = lock.Lease(WarehouseFiles(store.url), alone=False)
    heir.take()
    monkeypatch.undo()
    with pytest.raises(CacError, match="is lost"):
        dead.require_held()
    heir.require_held()


def test_a_run_that_lost_its_lock_writes_nothing(store: Warehouse) -> None:
    with store.lock():
        _stage(store)
        other = store._files.root / lock.LEASES / "00000002.json"
        store._files.create(other, b"{}")
        with pytest.raises(CacError, match="is lost"):
            store.publish(MODEL)
    assert store.read(SCORES).num_rows == 0
    assert store._files.read_bytes(other) == b"{}"  # the other run's lease is left alone


def test_a_run_that_was_asleep_too_long_writes_nothing(
    memory: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with memory.lock():
        _stage(memory)
        now = lock._now()
        monkeypatch.setattr(lock, "_now", lambda: now + lock.EXPIRY_S + 1)
        with pytest.raises(CacError, match="not renewed for 120 s"):
            memory.publish(MODEL)


def test_of_many_runs_at_once_one_gets_the_lock(store: Warehouse) -> None:
    won, begin = [], threading.Barrier(8)

    def run() -> None:
        lease = lock.Lease(WarehouseFiles(store.url), alone=False)
        begin.wait()
        try:
            lease.take()
        except CacError:
            return
        won.append(lease)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    won[0].require_held()


def test_a_lease_is_renewed(mount: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEW_S", 0.01)
    with mount.lock():
        path = mount.folder / lock.LEASES / "00000001.json"
        os.utime(path, (0, 0))
        for _ in range(500):
            if path.stat().st_mtime > 0:
                break
            threading.Event().wait(0.01)
        assert path.stat().st_mtime > 0


def test_a_dead_run_of_this_machine_is_followed_at_once_where_the_system_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "file_system_type", lambda folder: "nfs4")
    store = Warehouse(tmp_path / "wh")
    lock.Lease(WarehouseFiles(store.url), alone=True).take()  # and it dies
    with store.lock():
        assert _leases(store) == ["00000002.json"]


def test_a_store_that_ignores_conditions_is_refused(
    memory: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WarehouseFiles, "create", WarehouseFiles.put)
    with pytest.raises(CacError, match="conditional writes"), memory.lock():
        pass


@pytest.mark.parametrize("replaced", [False, True])
def test_a_warehouse_that_is_moved_away_is_no_success(tmp_path: Path, replaced: bool) -> None:
    store = Warehouse(tmp_path / "wh")
    away = tmp_path / "away"
    with store.lock():
        _stage(store)
        store.folder.rename(away)
        if replaced:
            store.folder.mkdir()
        with pytest.raises(CacError, match="moved or removed"):
            store.publish(MODEL)
        with pytest.raises(CacError, match="moved or removed"):
            _stage(store)
    assert not replaced or not any(store.folder.iterdir())
    if replaced:
        store.folder.rmdir()
    away.rename(store.folder)
    with store.lock():
        assert store.publish(MODEL) == 1
