"""A DICOMweb server on this machine that answers as it should, or as badly as a test wants."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydicom import dcmread
from pydicom.dataset import Dataset

_QIDO = ("StudyInstanceUID", "StudyDate", "StudyDescription", "PatientID", "PatientName")


@dataclass
class WebPacs:
    """Content and behaviour of the server; every fault is off at first."""

    files: list[Path]
    #: Status of the next answers, by what is asked for: `studies`, `series`, `metadata`, `pull`.
    failures: dict[str, list[int]] = field(default_factory=dict)
    token: str | None = None
    basic: str | None = None
    ignores_queries: bool = False
    ignores_paging: bool = False
    gzips: bool = False
    slow_s: float = 0.0
    counts: bool = True
    #: Changes the instances (Part 10 files) of a pull.
    change: Callable[[list[bytes]], list[bytes]] = lambda contents: contents
    #: Cuts off the body of a pull after so many bytes.
    cut: int | None = None
    endless: bool = False
    #: Sends the beginning of each answer byte by byte, with this pause.
    drips_s: float = 0.0
    #: Answers in place of the right ones, by what is asked for.
    instead: dict[str, bytes] = field(default_factory=dict)
    #: Redirects every request to this address.
    elsewhere: str | None = None
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    port: int = 0
    tls: bool = False

    @property
    def place(self) -> str:
        """Its place in the settings."""
        return f"dicomweb+http{'s' if self.tls else ''}://127.0.0.1:{self.port}/dicom-web"

    def datasets(self) -> list[Dataset]:
        """The headers of its files."""
        return [_header(path) for path in self.files]

    def asks(self, kind: str) -> int:
        """How often something was asked for."""
        return sum(item == kind for item in self.asked)


@lru_cache(maxsize=4096)
def _header(path: Path) -> Dataset:
    return dcmread(path, stop_before_pixels=True)


class _Handler(BaseHTTPRequestHandler):
    pacs: WebPacs
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        """Answer a request."""
        parts = urlsplit(self.path)
        steps = [step for step in parts.path.split("/") if step][1:]
        kind = {1: "studies", 3: "series", 4: "pull", 5: "metadata"}[len(steps)]
        self.pacs.asked.append(kind)
        self.pacs.headers.append(dict(self.headers.items()))
        time.sleep(self.pacs.slow_s)
        if self.pacs.elsewhere:
            return self._send(302, b"", "text/plain", {"Location": self.pacs.elsewhere})
        wanted = f"Bearer {self.pacs.token}" if self.pacs.token else self.pacs.basic
        if wanted and self.headers.get("Authorization") != wanted:
            return self._send(401, b"{}", "application/json")
        waiting = self.pacs.failures.get(kind, [])
        if waiting:
            return self._send(waiting.pop(0), b"no", "text/plain", {"Retry-After": "0"})
        if kind in self.pacs.instead:
            return self._send(200, self.pacs.instead[kind], "application/dicom+json")
        if kind == "pull":
            return self._pull(steps)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        found: list[Any] = getattr(self, f"_{kind}")(steps, query)
        return self._send(200, json.dumps(found).encode(), "application/dicom+json")

    def _studies(self, steps: list[str], query: dict[str, str]) -> list[dict[str, Any]]:
        by_uid: dict[str, list[Dataset]] = {}
        for item in self.pacs.datasets():
            by_uid.setdefault(item.StudyInstanceUID, []).append(item)
        answers = []
        for items in by_uid.values():
            answer = Dataset()
            for name in _QIDO:
                setattr(answer, name, items[0].get(name))
            answer.ModalitiesInStudy = sorted({item.Modality for item in items})
            if self.pacs.counts:
                answer.NumberOfStudyRelatedInstances = len(items)
                answer.NumberOfStudyRelatedSeries = len({i.SeriesInstanceUID for i in items})
            first, _, last = query.get("StudyDate", "-").partition("-")
            inside = (first or "0") <= answer.StudyDate <= (last or "9")
            modality = query.get("ModalitiesInStudy")
            inside &= modality is None or modality in answer.ModalitiesInStudy
            if inside or self.pacs.ignores_queries:
                answers.append(answer.to_json_dict())
        if self.pacs.ignores_paging:
            return answers
        offset = int(query.get("offset", 0))
        return answers[offset : offset + int(query.get("limit", 10**6))]

    def _series(self, steps: list[str], query: dict[str, str]) -> list[dict[str, Any]]:
        counts: dict[str, tuple[str, int]] = {}
        for item in self.pacs.datasets():
            if item.StudyInstanceUID == steps[1]:
                _, number = counts.get(item.SeriesInstanceUID, ("", 0))
                counts[item.SeriesInstanceUID] = (item.Modality, number + 1)
        answers = []
        for uid, (modality, number) in counts.items():
            answer = Dataset()
            answer.SeriesInstanceUID, answer.Modality = uid, modality
            answer.NumberOfSeriesRelatedInstances = number
            answers.append(answer.to_json_dict())
        return answers

    def _metadata(self, steps: list[str], query: dict[str, str]) -> list[dict[str, Any]]:
        return [
            item.to_json_dict()
            for item in self.pacs.datasets()
            if (item.StudyInstanceUID, item.SeriesInstanceUID) == (steps[1], steps[3])
        ]

    def _pull(self, steps: list[str]) -> None:
        contents = [
            path.read_bytes()
            for path, item in zip(self.pacs.files, self.pacs.datasets(), strict=True)
            if (item.StudyInstanceUID, item.SeriesInstanceUID) == (steps[1], steps[3])
        ]
        body = b"".join(
            b"\r\n--the boundary\r\nContent-Type: application/dicom\r\n\r\n" + content
            for content in self.pacs.change(contents)
        )
        body += b"\r\n--the boundary--\r\n"
        kind = 'multipart/related; type="application/dicom"; boundary="the boundary"'
        if self.pacs.endless:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body[: body.rindex(b"\r\n--")])
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"\0" * 2**20)
        elif self.pacs.cut is not None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: self.pacs.cut])
        else:
            return self._send(200, body, kind)
        self.close_connection = True
        return None

    def _send(
        self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None
    ) -> None:
        if self.pacs.gzips:
            body, more = gzip.compress(body), {"Content-Encoding": "gzip", **(more or {})}
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in (more or {}).items():
                self.send_header(name, value)
            self.end_headers()
            for number in range(100 if self.pacs.drips_s else 0):
                self.wfile.write(body[number : number + 1])
                time.sleep(self.pacs.drips_s)
            self.wfile.write(body[100 if self.pacs.drips_s else 0 :])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that ends the connection is no fault of the server."""


@contextlib.contextmanager
def web_pacs(files: list[Path], tls: ssl.SSLContext | None = None) -> Iterator[WebPacs]:
    """A server with the given files, which must hold plain data sets."""
    pacs = WebPacs(files, tls=tls is not None)
    handler = type("Handler", (_Handler,), {"pacs": pacs})
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    pacs.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield pacs
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def certificate(folder: Path, name: str = "127.0.0.1") -> tuple[Path, Path]:
    """A self-signed certificate for an address of this machine, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(name))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    cert, secret = folder / f"{name}.pem", folder / f"{name}.key"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    secret.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    secret.chmod(0o600)
    return cert, secret
