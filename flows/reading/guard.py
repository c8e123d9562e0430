"""Who may talk to the application: this machine, this page, and readers with its token."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cac_core.errors import UsageError
from schemas.reading import READER_PATTERN

#: Host names of this machine; another one in the header means that a foreign name leads here.
_HERE = ("127.0.0.1", "localhost", "[::1]")
_SAFE_METHODS = ("GET", "HEAD")
#: Headers of every answer. Nothing is loaded from elsewhere, nothing inline runs, nothing is kept.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Refuses foreign hosts and origins before a request reaches the application (ASGI)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in
                   scope["headers"]}  # fmt: skip

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *known]
            await send(message)

        reason = refusal(str(scope.get("method", "")), headers)
        if scope["type"] != "http" or reason:
            answer = JSONResponse({"error": reason or "Not a request."}, 403)
            await answer(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


def refusal(method: str, headers: Mapping[str, str]) -> str | None:
    """Why a request is refused; None if it comes from this application's page on this machine."""
    host = headers.get("host", "")
    if re.sub(r":\d+$", "", host) not in _HERE:
        return "The application answers on this machine only."
    origin = headers.get("origin")
    if origin is None and method not in _SAFE_METHODS:
        return "A request that changes something must come from the page of the application."
    if origin is not None and origin != f"http://{host}":
        return "A request from another page is refused."
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return "A request from another page is refused."
    return None


@dataclass
class Sessions:
    """Readers who have shown the token; it and the cookies are random and kept in memory only."""

    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    _readers: dict[str, str] = field(default_factory=dict, repr=False)

    def enter(self, token: str, reader: str) -> str | None:
        """The cookie of a reader; None if the token is not right.

        Raises
        ------
        UsageError
            If the name of the reader is none.
        """
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            return None
        if not re.fullmatch(READER_PATTERN, reader):
            raise UsageError(
                "That is not a name of a reader.",
                "Use letters, digits, blanks, dots and dashes, 64 characters at most.",
            )
        cookie = secrets.token_urlsafe(32)
        self._readers[cookie] = reader
        return cookie

    def reader(self, cookie: str | None) -> str | None:
        """The reader of a cookie; None without a session."""
        return None if cookie is None else self._readers.get(cookie)

    def leave(self, cookie: str | None) -> None:
        """End a session."""
        if cookie is not None:
            self._readers.pop(cookie, None)
