"""The lock of a warehouse: one writer at a time, on this machine, a network mount, or a store.

On a disk of this machine the system's lock of a file is enough: it ends with its process. Elsewhere
it may not reach other machines, or not exist. There a run holds a lease, a small numbered file that
it renews; the highest number is the owner. A number is taken by exclusive creation (`O_EXCL`, or a
conditional PUT with `If-None-Match: *`), so that of several runs one gets it. A lease that was not
renewed for `EXPIRY_S` is followed by the next number. Ages are told by the clock of the store.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cac_core.cohort.warehouse_files import WarehouseFiles, missing_folders, remove_empty
from cac_core.errors import CacError, LockedError

#: A lease that was not renewed for this long has lost its run.
EXPIRY_S = 120.0
#: Time between two renewals.
RENEW_S = 20.0
#: Folder of the leases, and file of the system's lock.
LEASES, LOCK_FILE = "_locks", "_lock"
#: File systems of this machine alone, where the system's lock reaches every process.
_OF_THIS_MACHINE = frozenset(
    ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "tmpfs", "overlay")
)
#: Errors of a file system without such locks.
_NO_FLOCK = frozenset((errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY))


@contextlib.contextmanager
def locked(files: WarehouseFiles) -> Iterator[None]:
    """Hold the lock of a warehouse; what is written meanwhile is refused if the lock is lost.

    A folder that this call created and that got no table is removed at the end.

    Raises
    ------
    CacError
        If another run is writing, or the warehouse cannot be written.
    """
    if not files.is_local:
        with _leased(files, alone=False):
            yield
        return
    folder = Path(files.root)
    created = missing_folders(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / LOCK_FILE).open("w")
    except OSError as error:
        raise files.unwritable(error) from None
    with stream:
        alone = _flock(stream.fileno(), files)
        identity = _identity(folder)
        try:
            if alone and file_system_type(folder) in _OF_THIS_MACHINE:
                with _guarded(files, lambda: _require_same(files, identity)):
                    yield
            else:
                with _leased(files, alone=alone, identity=identity):
                    yield
        finally:
            _remove_unused(folder, created)


def _flock(descriptor: int, files: WarehouseFiles) -> bool:
    """Take the system's lock; False on a file system that has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return False
        raise _busy(files) from None
    return True


@contextlib.contextmanager
def _guarded(files: WarehouseFiles, guard: Any) -> Iterator[None]:
    files.guard = guard
    try:
        yield
    finally:
        files.guard = lambda: None


@contextlib.contextmanager
def _leased(
    files: WarehouseFiles, *, alone: bool, identity: tuple[int, int] | None = None
) -> Iterator[None]:
    lease = Lease(files, alone=alone)
    lease.take()

    def guard() -> None:
        if identity is not None:
            _require_same(files, identity)
        lease.require_held()

    ended = threading.Event()
    renewal = threading.Thread(target=lease.renew_until, args=(ended,), daemon=True)
    renewal.start()
    try:
        with _guarded(files, guard):
            yield
    finally:
        ended.set()
        renewal.join()
        lease.release()


class Lease:
    """A numbered file that says which run may write.

    Parameters
    ----------
    files : files of the warehouse; its guard is not called.
    alone : the system's lock shows that no other process of this machine is writing.
    """

    def __init__(self, files: WarehouseFiles, *, alone: bool) -> None:
        self._files, self._alone = files, alone
        self._folder = files.root / LEASES
        self._owner = {
            "owner": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "expires_after_s": EXPIRY_S,
        }
        self._number = 0
        self._renewed = 0.0
        self._is_lost = False

    def take(self) -> None:
        """Take the lease.

        Raises
        ------
        CacError
            If another run holds it, or the store has no exclusive creation.
        """
        numbers = self._numbers()
        if numbers:
            self._require_free(numbers[-1])
        self._number = numbers[-1] + 1 if numbers else 1
        self._renewed = _now()
        if not self._create():
            raise _busy(self._files)
        if not self._files.is_local and self._create(another=True):
            raise CacError(
                f"The store of the warehouse {self._files.url} does not support conditional "
                "writes (If-None-Match), without which two runs could write at the same time.",
                "Update the server of the store, or use a folder.",
            )
        for number in numbers:
            with contextlib.suppress(OSError):
                self._files.remove(self._path(number))

    def require_held(self) -> None:
        """Check that the lease is renewed, and that no other run has taken over.

        Raises
        ------
        CacError
            If it is lost.
        """
        late = _now() - self._renewed > EXPIRY_S
        if late or self._is_lost or self._numbers()[-1:] != [self._number]:
            self._is_lost = True
            raise CacError(
                f"The lock of the warehouse {self._files.url} is lost: it was not renewed for "
                f"{EXPIRY_S:.0f} s or was removed, and another run may be writing.",
                "What was published stays; run the same command again, which goes on from there.",
            )

    def renew_until(self, ended: threading.Event) -> None:
        """Renew the lease again and again until `ended` is set."""
        while not ended.wait(RENEW_S):
            begun = _now()
            # A store that does not answer for a while is no fault as long as the lease lasts.
            with contextlib.suppress(CacError, OSError):
                self._renew()
                self._renewed = begun

    def release(self) -> None:
        """Give the lease back, if it is still this run's."""
        with contextlib.suppress(CacError, OSError):
            self.require_held()
            self._write(self._owner | {"released": True})

    def _renew(self) -> None:
        self.require_held()
        if self._files.is_local:
            os.utime(self._path(self._number))
        else:
            self._write(self._owner)

    def _write(self, content: dict[str, object]) -> None:
        data = json.dumps(content).encode()
        path = self._path(self._number)
        if self._files.is_local:
            Path(path).write_bytes(data)
        else:
            self._files.put(path, data)

    def _create(self, *, another: bool = False) -> bool:
        """Create the file of the lease; False if another run was first."""
        path = self._path(self._number)
        content = self._owner | ({"owner": ""} if another else {})
        try:
            self._files.create(path, json.dumps(content).encode())
        except FileExistsError:
            # A repeated request finds what the first one wrote although its answer got lost.
            return not another and self._read(self._number) == self._owner
        return True

    def _require_free(self, number: int) -> None:
        """Refuse to go on where the lease of this number is held."""
        owner = self._read(number)
        if owner.get("released") or (self._alone and owner.get("machine") == _machine()):
            return
        try:
            age = self._store_time() - self._files.modified(self._path(number))
        except FileNotFoundError:
            return
        if age < EXPIRY_S:
            raise _busy(self._files, owner, EXPIRY_S - age)

    def _store_time(self) -> float:
        """The clock of the store: when it says that a new file was written."""
        probe = self._folder / f"probe-{uuid.uuid4().hex}"
        self._files.create(probe, b"")
        try:
            return self._files.modified(probe)
        finally:
            self._files.remove(probe)

    def _read(self, number: int) -> dict[str, Any]:
        try:
            content = json.loads(self._files.read_bytes(self._path(number)) or b"{}")
        except ValueError:  # being written
            return {}
        return content if isinstance(content, dict) else {}

    def _numbers(self) -> list[int]:
        names = (PurePosixPath(name) for name in self._files.names(self._folder))
        return sorted(int(n.stem) for n in names if n.suffix == ".json" and n.stem.isdigit())

    def _path(self, number: int) -> PurePosixPath:
        return self._folder / f"{number:08d}.json"


def file_system_type(folder: Path) -> str:
    """Type of the file system of a folder, as the system names it; empty if it is unknown."""
    import psutil  # only writers need it

    place = os.path.realpath(folder)
    found = ("", "")
    for part in psutil.disk_partitions(all=True):
        mount = part.mountpoint.rstrip("/") + "/"
        if (place + "/").startswith(mount) and len(mount) >= len(found[0]):
            found = (mount, part.fstype)
    return found[1]


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _require_same(files: WarehouseFiles, identity: tuple[int, int]) -> None:
    """Refuse to write into another folder of the same name.

    A folder that is moved away in mid-run would be made anew, and a run would be taken for done.
    """
    try:
        if _identity(Path(files.root)) == identity:
            return
        found = "another folder has its place now"
    except OSError as error:
        found = error.strerror or type(error).__name__
    raise CacError(
        f"The warehouse {files.url} was moved or removed during the run, or its mount was lost "
        f"({found}); nothing more was written.",
        "Bring it back under this name and run the same command: it publishes the rows that were "
        "staged in it and goes on from there.",
    )


def _busy(
    files: WarehouseFiles, owner: dict[str, Any] | None = None, left: float = 0
) -> LockedError:
    who = f" ({owner['host']}, process {owner['pid']})" if owner and "host" in owner else ""
    wait = f"; if it has died, the warehouse is free in {left:.0f} s" if left else ""
    return LockedError(
        f"Another run{who} is writing to the warehouse {files.url}.",
        f"Wait for it to end, or stop it{wait}; `cac status` shows its state.",
        "" if owner or not files.is_local else str(files.root / LOCK_FILE),
    )


def _remove_unused(folder: Path, created: list[Path]) -> None:
    """Remove a warehouse that got no table, if this run created it."""
    with contextlib.suppress(OSError):
        if not created or {path.name for path in folder.iterdir()} - {LOCK_FILE, LEASES}:
            return
        (folder / LOCK_FILE).unlink()
        for path in (folder / LEASES).glob("*") if (folder / LEASES).exists() else ():
            path.unlink()
        remove_empty([folder / LEASES, *created])


def _machine() -> str:
    """The boot of this machine, the same in all its containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _now() -> float:
    """Seconds since the machine started, also while it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
