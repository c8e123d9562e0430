"""A server of `cac review` in a process of its own, and requests as a browser makes them."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Served:
    """A running server: its link, and what it wrote to standard error after it ended."""

    link: str
    err: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        """Name and port of the server."""
        return urlsplit(self.link).netloc

    @property
    def token(self) -> str:
        """The token of the link."""
        return urlsplit(self.link).fragment.removeprefix("token=")

    def ask(
        self, method: str, path: str, value: object = None, **headers: str
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, JSON object and headers of an answer."""
        connection = http.client.HTTPConnection(self.host, timeout=60)
        body = None if value is None else json.dumps(value)
        sent = {"Host": self.host} | ({"Origin": f"http://{self.host}"} if body else {}) | headers
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        data, names = answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        connection.close()
        is_json = names.get("content-type", "").startswith("application/json")
        return answer.status, json.loads(data) if is_json else {}, names

    def enter(self, reader: str) -> dict[str, str]:
        """The cookie of a new reader, as a header."""
        status, _, names = self.ask("POST", "/api/session", {"token": self.token, "reader": reader})
        assert status == 200
        return {"Cookie": names["set-cookie"].split(";")[0]}


@contextmanager
def served(
    archive: Path, warehouse: Path, environment: dict[str, str], kill: bool = False
) -> Iterator[Served]:
    """Serve a warehouse; stopped at the end, with SIGKILL if wanted."""
    command = [str(Path(sys.executable).with_name("cac")), "review", "-w", str(warehouse)]
    with subprocess.Popen(
        [*command, "--archive", str(archive)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline().strip()
        assert line.startswith("http://127.0.0.1:"), process.stderr.read()
        found = Served(line)
        try:
            yield found
        finally:
            process.kill() if kill else process.terminate()
            found.err.append(process.stderr.read())
            process.wait(20)
