"""The HTTP interface of the reading desk: JSON, packed pixels, and the files of the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from cac_core.errors import CacError
from cac_core.reading.work_list import ORDERS, STATES, Wanted
from flows.reading.desk import SITE_LIST, Desk, Row, runs_view, score_view
from flows.reading.guard import Guard, Sessions
from flows.reading.scans import CHUNK
from flows.runtime.faults import describe_fault
from schemas.codes import DiscrepancyCause
from schemas.invalid import InvalidTableError

#: Folder of the page.
STATIC = Path(str(files("flows.reading").joinpath("static")))
#: Largest body of a request, and most rows of a page of the list.
_MOST_BYTES, _MOST_ROWS = 512 * 1024, 500
#: What a reading shows of another one.
_SHOWN = (
    "reading_id", "reader", "kind", "agatston", "cac_category", "reason", "cause",
    "agatston_lm", "agatston_lad", "agatston_lcx", "agatston_rca", "agatston_noncoronary",
)  # fmt: skip
Answer = Callable[["Api", Request, str], Awaitable[Any]]


class Api:
    """Answers requests of readers who have shown the token."""

    def __init__(self, desk: Desk, sessions: Sessions, cookie: str) -> None:
        self.desk, self.sessions, self.cookie = desk, sessions, cookie

    def application(self) -> Guard:
        """The application, behind its guard."""
        routes = [
            Route("/", lambda _: FileResponse(STATIC / "index.html")),
            Route("/api/session", self._enter, methods=["POST"]),
            Route("/api/session", self._leave, methods=["DELETE"]),
            *(
                Route(f"/api/{path}", self._known(answer), methods=[method])
                for method, path, answer in _ROUTES
            ),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        faults: dict[Any, Any] = {CacError: _fault, InvalidTableError: _fault, Exception: _unknown}
        return Guard(Starlette(routes=routes, exception_handlers=faults))

    def _known(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """A route for readers with a session."""

        async def route(request: Request) -> Response:
            reader = self.sessions.reader(request.cookies.get(self.cookie))
            if reader is None:
                return JSONResponse({"error": "Open the link that `cac review` printed."}, 401)
            found = await answer(self, request, reader)
            return found if isinstance(found, Response) else JSONResponse(found)

        return route

    async def _enter(self, request: Request) -> Response:
        given = await body(request)
        reader = " ".join(str(given.get("reader", "")).split())
        value = self.sessions.enter(str(given.get("token", "")), reader)
        if value is None:
            return JSONResponse({"error": "Open the link that `cac review` printed."}, 401)
        answer = JSONResponse({"reader": reader})
        answer.set_cookie(self.cookie, value, httponly=True, samesite="strict", path="/")
        return answer

    async def _leave(self, request: Request) -> Response:
        self.sessions.leave(request.cookies.get(self.cookie))
        answer = JSONResponse({})
        answer.delete_cookie(self.cookie, path="/")
        return answer

    # -- the work list ---------------------------------------------------------------------

    async def session(self, request: Request, reader: str) -> Row:
        """Who reads, and what the page offers."""
        return {
            "reader": reader,
            "model": self.desk.model,
            "orders": ORDERS,
            "states": STATES,
            "facets": self.desk.work_list.facets(),
            "sites": SITE_LIST,
            "causes": [(cause.value, cause.description) for cause in DiscrepancyCause],
            "chunk": CHUNK,
        }

    async def studies(self, request: Request, reader: str) -> Row:
        """A page of the work list."""
        await run_in_threadpool(self.desk.refresh)
        asked = dict(request.query_params)
        offset, limit = _number(asked.pop("offset", 0)), _number(asked.pop("limit", 50))
        page = self.desk.work_list.page(_wanted(asked), reader, offset, min(limit, _MOST_ROWS))
        return page | {"progress": self.desk.work_list.progress(reader)}

    async def assign(self, request: Request, reader: str) -> Row:
        """Assign studies to a reader."""
        given = await body(request)
        studies = [str(key) for key in given.get("studies", [])]
        to = " ".join(str(given.get("reader", "")).split())
        return {"assigned": await run_in_threadpool(self.desk.assign, reader, studies, to)}

    async def prefetch(self, request: Request, reader: str) -> Row:
        """Begin to open a study that comes next."""
        self.desk.scan(request.path_params["key"])
        return {}

    # -- one study -------------------------------------------------------------------------

    async def opened(self, request: Request, reader: str) -> Row:
        """Size and place of a scan, and what is known of the study; waits for its pixels."""
        key = request.path_params["key"]
        study, scan = self.desk.study(key), self.desk.scan(key)
        volume = await run_in_threadpool(scan.volume.result)
        names = (
            "study_key", "agatston", "cac_category", "agatston_low", "agatston_high",
            "review_reasons", "quality_flags", "expert_agatston", "expert_cac_category",
            "visual_grade",
        )  # fmt: skip
        return {
            "shape": volume.hu.shape,
            "spacing_mm": volume.spacing_mm,
            "study": {name: study[name] for name in names},
            "kinds": self.desk.kinds(reader, key),
            "readings": self._readings(reader, key),
        }

    async def pixels(self, request: Request, reader: str) -> Response:
        """Slices as int16, compressed; the browser unpacks them."""
        scan = self.desk.scan(request.path_params["key"])
        begin, end = _number(request.query_params["begin"]), _number(request.query_params["end"])
        if not begin < end <= begin + CHUNK:
            raise HTTPException(400)
        data = await run_in_threadpool(scan.packed, begin, end)
        headers = {"content-encoding": "gzip"}
        return Response(data, media_type="application/octet-stream", headers=headers)

    async def draft(self, request: Request, reader: str) -> Row:
        """Masks and score of the reading that is not signed yet."""
        key = request.path_params["key"]
        draft = await run_in_threadpool(self.desk.draft, reader, key)
        return await run_in_threadpool(self._draft_view, draft)

    async def start(self, request: Request, reader: str) -> Row:
        """Begin a reading again, from the model or another reading."""
        given = await body(request)
        key, kind, begin = request.path_params["key"], given.get("kind"), given.get("begin")
        draft = await run_in_threadpool(self.desk.start, reader, key, kind, begin)
        return await run_in_threadpool(self._draft_view, draft)

    async def correct(self, request: Request, reader: str) -> Row:
        """Correct, undo or redo; the new score and the slices that changed."""
        given = await body(request)
        draft = await run_in_threadpool(self.desk.draft, reader, request.path_params["key"])

        def apply() -> Row:
            with draft.lock:
                what = given.get("do")
                if what in ("undo", "redo"):
                    slices = draft.masks.undo() if what == "undo" else draft.masks.redo()
                else:
                    slices = draft.masks.correct(given)
                view = score_view(draft.masks)
                return {"score": view, "slices": runs_view(draft.masks, slices)}

        return await run_in_threadpool(apply)

    async def other(self, request: Request, reader: str) -> Row:
        """Masks of a signed reading, for comparison."""
        key, reading = request.path_params["key"], request.path_params["reading"]
        masks = await run_in_threadpool(self.desk.signed_masks, reader, key, reading)
        return {"score": score_view(masks), "slices": runs_view(masks)}

    async def sign(self, request: Request, reader: str) -> Row:
        """Sign the reading."""
        key = request.path_params["key"]
        row = await run_in_threadpool(self.desk.sign, reader, key, await body(request))
        signed = {name: row[name] for name in _SHOWN}
        return {"signed": signed, "readings": self._readings(reader, key)}

    def _readings(self, reader: str, key: str) -> list[Row]:
        rows = self.desk.visible(reader, key)
        return [{name: row[name] for name in _SHOWN} for row in rows]

    def _draft_view(self, draft: Any) -> Row:
        with draft.lock:
            return {
                "kind": draft.kind,
                "model_agatston": draft.model_score,
                "score": score_view(draft.masks),
                "slices": runs_view(draft.masks),
            }


_ROUTES: tuple[tuple[str, str, Answer], ...] = (
    ("GET", "session", Api.session),
    ("GET", "studies", Api.studies),
    ("POST", "assignments", Api.assign),
    ("GET", "studies/{key}", Api.opened),
    ("POST", "studies/{key}/prefetch", Api.prefetch),
    ("GET", "studies/{key}/pixels", Api.pixels),
    ("GET", "studies/{key}/draft", Api.draft),
    ("POST", "studies/{key}/draft", Api.start),
    ("POST", "studies/{key}/corrections", Api.correct),
    ("GET", "studies/{key}/readings/{reading}", Api.other),
    ("POST", "studies/{key}/readings", Api.sign),
)


async def body(request: Request) -> Row:
    """The JSON object of a request.

    Raises
    ------
    HTTPException
        If it is none, or too large.
    """
    if int(request.headers.get("content-length") or 0) > _MOST_BYTES:
        raise HTTPException(413)
    try:
        value = await request.json()
    except (ValueError, RecursionError):
        raise HTTPException(400) from None
    if not isinstance(value, dict):
        raise HTTPException(400)
    return value


def _wanted(asked: dict[str, str]) -> Wanted:
    """Filters and order from the query."""
    names = {field.name for field in dataclasses.fields(Wanted)}
    values: Row = {name: value for name, value in asked.items() if name in names and value}
    values["assigned"] = values.get("assigned") == "true"
    if "needs_review" in values:
        values["needs_review"] = values["needs_review"] == "true"
    if values.get("order", ORDERS[0]) not in ORDERS:
        raise HTTPException(400)
    if values.get("disagrees", "any") not in ("any", "expert", "visual"):
        raise HTTPException(400)
    return Wanted(**values)


def _number(text: str | int) -> int:
    try:
        return max(0, int(text))
    except ValueError:
        raise HTTPException(400) from None


def _fault(_: Request, error: Exception) -> Response:
    what, hint = getattr(error, "what", "The table was refused."), getattr(error, "hint", "")
    return JSONResponse({"error": what, "hint": hint}, 409)


def _unknown(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"A fault of the program: {describe_fault(error)}."}, 500)
