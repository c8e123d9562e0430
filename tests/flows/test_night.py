"""Metrics, the check of the last night, and notifications, from rows of `runs` and `canaries`."""

from __future__ import annotations

import datetime as dt
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from prometheus_client.parser import text_string_to_metric_families

from cac_core.cohort.warehouse import Warehouse
from cac_core.settings import load_settings
from flows.night import check_night
from flows.runtime.metrics import metrics_text, serve_metrics, write_metrics
from flows.runtime.notify import tell
from schemas.run import RUNS
from schemas.score import SCORES
from tests.builders.rows import run_row, score_row


def _run(hours: float, number: int, **changes: object) -> dict[str, object]:
    """A run that ended that many hours ago."""
    ended = dt.datetime.now(dt.UTC) - dt.timedelta(hours=hours)
    times = {"started_at": ended - dt.timedelta(minutes=20), "finished_at": ended}
    return run_row(number) | times | changes


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    """Two good nights, the newer one 2 hours ago, and a removal after it."""
    store = Warehouse(tmp_path / "wh")
    counts = {"scored": 19, "rejected": 0, "failed": 1}
    store.add_run(_run(26, 1))
    store.add_run(_run(2, 2, **counts))
    store.add_run(_run(1, 3, job="forget", scored=0, rejected=0, failed=0))
    rows = [
        score_row(1, needs_review=True),
        score_row(2),
        score_row(3, status="failed", reason="timeout", agatston=None, cac_category=None),
    ]
    store.replace(SCORES, SCORES.from_rows(rows), "m")
    return store


def _config(tmp_path: Path, text: str) -> str:
    path = tmp_path / "cac.toml"
    path.write_text(text)
    return str(path)


def _values(text: str) -> dict[tuple[str, ...], float]:
    """Samples by name and label values, read by the parser of the library."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics(store: Warehouse, tmp_path: Path) -> None:
    config = _config(tmp_path, '[metrics]\ntextfile = "metrics/cac.prom"\n')
    settings = load_settings(Path(config))
    write_metrics(store, settings)
    (written,) = (tmp_path / "metrics").iterdir()
    found = _values(written.read_text())
    assert found["cac_last_run_outcome", "completed"] == 1
    assert found["cac_last_run_outcome", "error"] == 0
    assert found["cac_studies", "", "m", "scored"] == 2
    assert found["cac_studies", "failed", "m", "timeout"] == 1
    assert found["cac_needs_review", "m"] == 1
    assert found[("cac_last_run_duration_seconds",)] == 1200
    assert found[("cac_failed_ratio",)] == pytest.approx(1 / 20)
    assert found[("cac_failure_budget_ratio",)] == pytest.approx(0.05)
    assert found[("cac_last_success_age_seconds",)] == pytest.approx(7200, abs=600)
    assert found[("cac_canaries_drifted",)] == 0
    write_metrics(store, settings, error=True)
    assert _values(written.read_text())["cac_last_run_outcome", "error"] == 1
    empty = _values(metrics_text(Warehouse(tmp_path / "none"), settings).decode())
    assert not any(empty[name] for name in empty if name[0] == "cac_last_run_outcome")


def test_metrics_over_http_stay_on_this_machine(store: Warehouse) -> None:
    server, thread = serve_metrics(store, load_settings(None), 0)
    try:
        address, port = server.server_address[:2]
        assert address == "127.0.0.1"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            found = _values(answer.read().decode())
        assert found["cac_studies", "", "m", "scored"] == 2
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Inbox:
    """Takes mails."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], Message]] = []

    async def handle_DATA(self, server: object, session: object, envelope: object) -> str:  # noqa: N802
        from email import message_from_bytes

        content = message_from_bytes(envelope.content)  # type: ignore[attr-defined]
        self.mails.append((envelope.rcpt_tos, content))  # type: ignore[attr-defined]
        return "250 OK"


@pytest.fixture
def mail() -> Iterator[tuple[_Inbox, int]]:
    inbox = _Inbox()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(inbox, hostname="127.0.0.1", port=port, ready_timeout=60)
    controller.start()
    yield inbox, port
    controller.stop()


@pytest.fixture
def hook() -> Iterator[tuple[list[dict[str, object]], str]]:
    """A server that takes JSON."""
    got: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield got, f"http://127.0.0.1:{server.server_address[1]}/secret-path"
        server.shutdown()
        thread.join()


def test_a_late_night_is_told(
    store: Warehouse,
    tmp_path: Path,
    mail: tuple[_Inbox, int],
    hook: tuple[list[dict[str, object]], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (inbox, port), (posts, url) = mail, hook
    monkeypatch.setenv("CAC_WEBHOOK_URL", url)
    config = _config(
        tmp_path,
        f'[notify]\nsmtp_host = "127.0.0.1"\nsmtp_port = {port}\n'
        'mail_from = "cac@example.org"\nmail_to = ["a@example.org", "b@example.org"]\n',
    )
    said: list[str] = []
    good = check_night(store.url, config, 3, notify=True, say=said.append)
    assert (good.ok, good.problems, posts, inbox.mails) == (True, [], [], [])
    late = check_night(store.url, config, 1, notify=True, say=said.append)
    assert not late.ok
    assert "more than 1 h" in late.problems[0]
    ((recipients, message),) = inbox.mails
    assert recipients == ["a@example.org", "b@example.org"]
    assert "more than 1 h" in str(message.get_payload())
    (post,) = posts
    assert post["problems"] == late.problems
    assert said == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"outcome": "over_budget", "failed": 9}, "failure budget"),
        ({"outcome": "interrupted"}, "interrupted"),
    ],
)
def test_a_bad_night(store: Warehouse, change: dict[str, object], word: str) -> None:
    store.add_run(_run(0.5, 4, **change))
    found = check_night(store.url, None, 26, notify=False, say=print)
    assert not found.ok
    assert any(word in problem for problem in found.problems)


def test_a_warehouse_without_a_night(tmp_path: Path) -> None:
    store = Warehouse(tmp_path / "wh")
    store.replace(RUNS, RUNS.empty())
    found = check_night(store.url, None, 26, notify=False, say=print)
    assert (found.ok, found.hours_since_success) == (False, None)


def test_a_notification_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAC_WEBHOOK_URL", "http://127.0.0.1:9/secret-path")
    config = _config(
        tmp_path,
        '[notify]\nsmtp_host = "127.0.0.1"\nsmtp_port = 9\n'
        'mail_from = "c@example.org"\nmail_to = ["a@example.org"]\n',
    )
    said: list[str] = []
    tell(load_settings(Path(config)).notify, "s", ["p"], {}, said.append)
    assert len(said) == 2
    assert not any("secret-path" in line for line in said)
