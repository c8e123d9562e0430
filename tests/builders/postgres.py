"""A PostgreSQL server in a temporary folder, on loopback, for tests that need a real one."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

_PASSWORD = "a password used by the tests only"


def binaries() -> Path | None:
    """Folder with `initdb` and `postgres`; Debian does not put them on PATH."""
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    folders = sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    found = shutil.which("initdb")
    if found:
        folders.append(Path(found).parent)
    return next((one for one in folders if (one / "initdb").exists()), None)


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Postgres:
    """The server; `start` and `stop` may alternate, the data stays."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder, self.port = programs, folder, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root.
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
        self.user = user if os.getuid() == 0 else None
        if self.user:
            os.chown(folder, pwd.getpwnam(self.user).pw_uid, -1)
        secret = folder / "password"
        secret.write_text(_PASSWORD, encoding="utf-8")
        secret.chmod(0o644)
        subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", "cac", "-A", "scram-sha-256",
             "-E", "UTF8", "--pwfile", secret],
            user=self.user, cwd=folder, check=True, capture_output=True,
        )  # fmt: skip

    @property
    def url(self) -> str:
        """As Prefect's server takes it."""
        password = _PASSWORD.replace(" ", "%20")
        return f"postgresql+asyncpg://cac:{password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.process = subprocess.Popen(
            [self.programs / "postgres", "-D", "data", "-k", self.folder, "-p", str(self.port),
             "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
            user=self.user, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        began = monotonic()
        while monotonic() - began < 60:
            assert self.process.poll() is None
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            sleep(0.2)
        raise AssertionError("PostgreSQL does not start")

    def stop(self) -> None:
        """End it at once, as a machine does that goes down."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(timeout=60)
        self.process = None


@contextlib.contextmanager
def postgres(programs: Path) -> Iterator[Postgres]:
    """A running server, ended and removed afterwards."""
    folder = Path(
        tempfile.mkdtemp(prefix="cac-postgres-")
    )  # folders of pytest are closed to others
    try:
        server = Postgres(programs, folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
