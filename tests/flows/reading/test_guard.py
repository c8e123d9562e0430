"""Requests from elsewhere are refused, and readers without the token."""

from __future__ import annotations

import pytest

from cac_core.errors import UsageError
from flows.reading.guard import Sessions, refusal

HOST = "127.0.0.1:8123"
HERE = {"host": HOST, "origin": f"http://{HOST}"}


@pytest.mark.parametrize("host", [HOST, "localhost:8123", "127.0.0.1", "[::1]:8123"])
def test_the_page_on_this_machine_is_answered(host: str) -> None:
    assert refusal("GET", {"host": host}) is None
    assert refusal("POST", {"host": host, "origin": f"http://{host}"}) is None


@pytest.mark.parametrize(
    "host", ["", "example.org", "example.org:8123", "127.0.0.1.example.org", "10.0.0.5:8123",
             "127.0.0.1@example.org", "localhost.example:1"],
)  # fmt: skip
def test_another_host_is_refused(host: str) -> None:
    assert refusal("GET", {"host": host}) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": "http://example.org"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": f"https://{HOST}"},
        {"origin": f"http://{HOST}.example.org"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_origin_is_refused(changes: dict[str, str]) -> None:
    assert refusal("POST", HERE | changes) is not None
    assert refusal("GET", HERE | changes) is not None


def test_a_change_needs_an_origin() -> None:
    assert refusal("POST", {"host": HOST}) is not None
    assert refusal("DELETE", {"host": HOST}) is not None


def test_sessions() -> None:
    sessions = Sessions()
    assert sessions.enter("wrong", "Ann") is None
    cookie = sessions.enter(sessions.token, "Ann")
    assert cookie is not None and sessions.reader(cookie) == "Ann"
    assert sessions.reader(None) is None and sessions.reader("x") is None
    sessions.leave(cookie)
    assert sessions.reader(cookie) is None
    assert sessions.token not in repr(sessions)
    with pytest.raises(UsageError):
        sessions.enter(sessions.token, "<script>")
