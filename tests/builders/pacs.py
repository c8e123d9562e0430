"""PACS on the loopback interface, started by the tests: Orthanc, and dcmqrscp of dcmtk."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from pydicom import dcmread
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from cac_core.sources.dimse_association import without_delay
from tests.builders.dicom_files import CAPTURE_CLASS, CT_CLASS, NM_CLASS

_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
#: Both servers bind to all interfaces, whatever their settings say.
_SHIM = """
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <sys/socket.h>
int bind(int fd, const struct sockaddr *address, socklen_t size) {
    static int (*real)(int, const struct sockaddr *, socklen_t);
    if (!real) real = dlsym(RTLD_NEXT, "bind");
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 changed = *(const struct sockaddr_in6 *)address;
        changed.sin6_addr = in6addr_loopback;
        return real(fd, (struct sockaddr *)&changed, sizeof changed);
    }
    if (address->sa_family == AF_INET) {
        struct sockaddr_in changed = *(const struct sockaddr_in *)address;
        changed.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return real(fd, (struct sockaddr *)&changed, sizeof changed);
    }
    return real(fd, address, size);
}
"""


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _loopback_only(folder: Path) -> dict[str, str]:
    """Environment in which a server binds to the loopback interface; skips without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: the servers would listen on all interfaces")
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text(_SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "TCP_NODELAY": "1", "PATH": os.environ["PATH"]}


@dataclass(frozen=True)
class Pacs:
    """A running PACS."""

    process: subprocess.Popen[bytes]
    dicom_port: int
    http_port: int = 0
    title: str = "ORTHANC"

    @property
    def web(self) -> str:
        """Its place by DICOMweb."""
        return f"dicomweb+http://127.0.0.1:{self.http_port}/dicom-web"

    @property
    def dimse(self) -> str:
        """Its place by DIMSE."""
        return f"dicom://{self.title}@127.0.0.1:{self.dicom_port}"

    @property
    def rest(self) -> str:
        """The address of Orthanc's own interface."""
        return f"http://127.0.0.1:{self.http_port}"

    def store(self, files: Iterable[Path]) -> None:
        """Store files by DIMSE."""
        entity = AE("SENDER")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            contexts = [build_context(one) for one in (CT_CLASS, NM_CLASS, CAPTURE_CLASS)]
            link = self._linked(entity, contexts)
            for path in files:
                assert link.send_c_store(dcmread(path)).Status == 0
            link.release()

    def _linked(self, entity: AE, contexts: list[PresentationContext]) -> Association:
        """An association; a server on a busy machine may not take the first."""
        for _ in range(10):
            link = entity.associate(
                "127.0.0.1",
                self.dicom_port,
                contexts,
                self.title,
                evt_handlers=[(evt.EVT_CONN_OPEN, without_delay)],
            )
            if link.is_established:
                return link
            time.sleep(1)
        raise AssertionError("the server accepts no association")

    def upload(self, files: Iterable[Path]) -> None:
        """Store files of one folder or several."""
        with requests.Session() as session:
            for path in files:
                session.post(f"{self.rest}/instances", data=path.read_bytes()).raise_for_status()

    def clear(self) -> None:
        """Remove every patient."""
        with requests.Session() as session:
            for patient in session.get(f"{self.rest}/patients").json():
                session.delete(f"{self.rest}/patients/{patient}").raise_for_status()


@contextlib.contextmanager
def orthanc(folder: Path, *, peer_port: int | None = None, **options: object) -> Iterator[Pacs]:
    """Orthanc with DICOMweb and an empty store; skips where it is not installed.

    Parameters
    ----------
    peer_port : port of the storage SCP `CAC` on this machine, to which it sends by C-MOVE.
    options : further settings of Orthanc.
    """
    binary = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    if not Path(binary).exists() or not _PLUGIN.exists():
        pytest.skip("orthanc and orthanc-dicomweb are not installed")
    folder.mkdir(parents=True, exist_ok=True)
    http, dicom = free_port(), free_port()
    settings: dict[str, object] = {
        "Name": "test",
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "MaximumPduLength": 131072,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "Plugins": [str(_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "DicomModalities": {"cac": ["CAC", "127.0.0.1", peer_port or 1]},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings | options))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, str(folder / "orthanc.json")],
            env=_loopback_only(folder),
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(process, http)
        _wait_for(process, dicom)
        yield Pacs(process, dicom, http)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def dcmqrscp(folder: Path, *, peer_port: int | None = None) -> Iterator[Pacs]:
    """The image archive of dcmtk with an empty store; skips where it is not installed."""
    binary = shutil.which("dcmqrscp")
    if binary is None:
        pytest.skip("dcmtk is not installed")
    store = folder / "store"
    store.mkdir(parents=True)
    port = free_port()
    (folder / "qr.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
        f"HostTable BEGIN\ncac = (CAC, 127.0.0.1, {peer_port or 1})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nDCMTK {store} RW (500, 4096mb) ANY\nAETable END\n"
    )
    with (folder / "qr.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "-c", str(folder / "qr.cfg")],
            env=_loopback_only(folder),
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(process, port)
        yield Pacs(process, port, title="DCMTK")
    finally:
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError("the server does not answer")
