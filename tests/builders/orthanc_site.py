"""An Orthanc with DICOMweb on loopback, in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from time import monotonic, sleep

import pytest
import requests

_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_START_S = 30.0


@dataclass(frozen=True)
class Orthanc:
    """Addresses of a running Orthanc."""

    http: str
    dimse_port: int

    @property
    def dicomweb(self) -> str:
        """Base URL of DICOMweb."""
        return f"{self.http}/dicom-web"

    def instances(self) -> int:
        """Number of stored instances."""
        return int(requests.get(f"{self.http}/statistics", timeout=10).json()["CountInstances"])

    def find(self, level: str, query: dict[str, str]) -> list[dict[str, object]]:
        """Instances, series or studies that match a query, expanded."""
        body = {"Level": level, "Query": query, "Expand": True}
        answer = requests.post(f"{self.http}/tools/find", json=body, timeout=10)
        return list(answer.json())


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def orthanc(folder: Path, port: int | None = None) -> Iterator[Orthanc]:
    """Start Orthanc, on a port; skips the test where it is not installed.

    It binds all interfaces whatever its settings say, so that only requests from this machine are
    accepted (`RemoteAccessAllowed`), and DICOM calls only with the AE title that is set here.
    """
    program = which("Orthanc") or "/usr/sbin/Orthanc"
    if not Path(program).exists() or not _PLUGIN.exists():
        pytest.skip("orthanc and orthanc-dicomweb are not installed")
    http, dimse = port or free_port(), free_port()
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http,
        "DicomPort": dimse,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowStore": True,
        "Plugins": [str(_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "orthanc.json"
    place.write_text(json.dumps(settings))
    with (
        (folder / "orthanc.log").open("wb") as log,
        subprocess.Popen(
            [program, place], stdout=log, stderr=log, env={**os.environ, "TCP_NODELAY": "1"}
        ) as server,
    ):
        try:
            _wait(f"http://127.0.0.1:{http}/system", server)
            yield Orthanc(f"http://127.0.0.1:{http}", dimse)
        finally:
            server.kill()


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    end = monotonic() + _START_S
    while monotonic() < end and server.poll() is None:
        with contextlib.suppress(requests.ConnectionError):
            requests.get(url, timeout=5)
            return
        sleep(0.05)
    raise RuntimeError("Orthanc did not start")
