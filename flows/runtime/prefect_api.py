"""A Prefect API server for one run, protected by a password."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import psutil

from cac_core.errors import CacError
from cac_core.keys import SECRET_VARIABLE
from flows.runtime.isolation import load_prefect

_RECORD = "run-{}.json"
#: A busy machine needs minutes to start the server; after this time there is another fault.
_START_TIMEOUT_S = 600.0
_SAY_AFTER_S = 20.0
_ATTEMPTS = 2
_HAND_OVER_S = 5.0


class OwnApi:
    """The server of one run: a child process that requires a password created for this run.

    The password is passed in the environment, which other users cannot read, and never as an
    argument, which they can.

    Parameters
    ----------
    home : Prefect's folder, with its database and the log of the server.
    say : receives a message if the start takes long.
    meanwhile : called while the server starts, once Prefect is imported.
    """

    def __init__(
        self,
        home: Path,
        say: Callable[[str], None],
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self.home, self.say, self.meanwhile = home, say, meanwhile
        self.record = home / _RECORD.format(os.getpid())
        self.log = home / "server.log"
        self.password = f"cac:{secrets.token_urlsafe(32)}"
        self.server: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self) -> None:
        """Start the server and set the environment of Prefect's client; does not wait."""
        self.port = _free_port()
        variables = os.environ | {
            "PREFECT_SERVER_API_AUTH_STRING": self.password,
            "PREFECT_API_AUTH_STRING": self.password,
        }
        variables.pop(SECRET_VARIABLE, None)
        with self.log.open("wb") as output:
            self.server = subprocess.Popen(
                [sys.executable, "-P", "-m", "prefect", "server", "start", "--no-services",
                 "--no-ui", "--analytics-off", "--host", "127.0.0.1", "--port", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.home,
                env=variables,
            )  # fmt: skip
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{self.port}/api"
        os.environ["PREFECT_API_AUTH_STRING"] = self.password
        # A server on loopback answers or is gone: with Prefect's five retries, each of several
        # requests at the end of a run would wait a minute for it.
        os.environ["PREFECT_CLIENT_MAX_RETRIES"] = "1"
        self._note(self.server.pid)

    def wait(self) -> None:
        """Import Prefect and wait until the server answers.

        Raises
        ------
        CacError
            If the server ends twice before it answers, or does not answer for ten minutes.
        """
        for attempt in range(_ATTEMPTS):
            if attempt:
                self.start()
            load_prefect(self.home)
            self.meanwhile()
            if self._answers():
                return
        raise CacError(
            f"The Prefect API of this run does not start: its server ended twice (exit status "
            f"{self.server.returncode if self.server else '?'}).",
            f"See its log, {self.log}; `cac doctor` checks the rest of the installation.",
        )

    def stop(self) -> None:
        """Hand over what Prefect still holds of the run, and end the server."""
        if self.server is not None:
            if self.server.poll() is None:
                _hand_over()
            self.server.terminate()
            try:
                self.server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
        self.record.unlink(missing_ok=True)

    def _answers(self) -> bool:
        """Wait until the server answers; False if it has ended."""
        assert self.server is not None
        began, said = monotonic(), False
        while self.server.poll() is None:
            if _healthy(self.port) and _listens(self.server.pid, self.port):
                return True
            waited = monotonic() - began
            if waited > _START_TIMEOUT_S:
                raise CacError(
                    "The Prefect API of this run does not answer after "
                    f"{_START_TIMEOUT_S / 60:.0f} minutes, though its server runs.",
                    f"See its log, {self.log}; the machine may be overloaded.",
                )
            if waited > _SAY_AFTER_S and not said:
                self.say("waiting for the Prefect API of this run to start; this machine is busy")
                said = True
            sleep(0.05)
        return False

    def _note(self, server: int) -> None:
        """Record this process and its server with their start times, since ids are reused."""
        entries = [
            {"pid": pid, "created": psutil.Process(pid).create_time()}
            for pid in (os.getpid(), server)
        ]
        aside = self.record.with_suffix(".tmp")
        aside.write_text(json.dumps(entries), encoding="utf-8")
        aside.replace(self.record)


def end_left_behind(home: Path) -> None:
    """End the servers of killed runs."""
    for record in home.glob(_RECORD.format("*")):
        try:
            run, server = (_find(entry) for entry in json.loads(record.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError):
            run, server = None, None
        if run is not None:
            continue  # the run is still active
        with contextlib.suppress(psutil.Error):
            if server is not None:
                server.send_signal(signal.SIGTERM)
                server.wait(timeout=5)
        record.unlink(missing_ok=True)


def _hand_over() -> None:
    """Send the last log lines and events of the run.

    Prefect would send them when this process ends, to a server that is gone: seconds of attempts.
    """
    if "prefect.events.worker" in sys.modules:
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogHandler

        APILogHandler().flush()
        EventsWorker.drain_all(timeout=_HAND_OVER_S)


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)  # ignores proxies
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _listens(server: int, port: int) -> bool:
    """Whether our server owns the port: another process may have taken it."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(server)
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for one in (process, *process.children(recursive=True))
            for connection in one.net_connections("inet")
        )
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _find(entry: dict[str, float]) -> psutil.Process | None:
    try:
        process = psutil.Process(int(entry["pid"]))
        return process if abs(process.create_time() - entry["created"]) < 1.0 else None
    except psutil.Error:
        return None
