"""The pages of ``trainkit ui`` and what they ask for; needs the extra ``web``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from trainkit.web.watch import Tail, Watched, change, details, file_of, thinned

EVERY = 1.0
"""Seconds between two looks at the files."""
_TEMPLATES = Path(__file__).with_name("templates")
_STYLES = Path(__file__).parents[1] / "reports" / "templates" / "page.css"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_REPORT = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
_TYPES = {".html": "text/html", ".png": "image/png", ".css": "text/css", ".js": "text/javascript"}


class Pages:
    """One method for each address."""

    def __init__(self, folder: Path) -> None:
        self.watched = Watched(folder.resolve())

    async def page(self, request: Request) -> Response:
        return _give(_TEMPLATES / "ui.html")

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ("page.css", "ui.js", "charts.js", "ui.css"):
            return _missing(name)
        return _give(_STYLES if name == "page.css" else _TEMPLATES / name)

    async def runs(self, request: Request) -> Response:
        rows = await asyncio.to_thread(self.watched.look)
        return JSONResponse({"root": str(self.watched.root), "runs": list(rows.values())}, headers=_HEADERS)

    async def run(self, request: Request) -> Response:
        found = await asyncio.to_thread(self.watched.find, request.path_params["id"])
        if found is None:
            return _missing("such run")
        return JSONResponse(await asyncio.to_thread(details, found), headers=_HEADERS)

    async def file(self, request: Request) -> Response:
        run_id, _, name = request.path_params["path"].partition("/-/")
        if name:
            found = await asyncio.to_thread(self.watched.find, run_id)
            path = None if found is None else file_of(found, name)
        else:
            path = self.watched.page_of(run_id)
        return _missing("such file") if path is None else await asyncio.to_thread(_give, path)

    async def changes(self, request: Request) -> Response:
        return _stream(self._changes())

    async def _changes(self) -> AsyncIterator[dict[str, Any] | None]:
        """What differs from the last message of this stream; the first one has all runs."""
        known: dict[str, dict[str, Any]] = {}
        while True:
            now = await asyncio.to_thread(self.watched.look)
            yield change(known, now)
            known = now
            await asyncio.sleep(EVERY)

    async def records(self, request: Request) -> Response:
        ids = request.query_params.getlist("run")
        runs = [await asyncio.to_thread(self.watched.find, one) for one in ids]
        tails = {one: Tail(run.metrics) for one, run in zip(ids, runs, strict=True) if run is not None}
        return _stream(self._records(tails)) if tails and None not in runs else _missing("such run")

    async def _records(self, tails: dict[str, Tail]) -> AsyncIterator[dict[str, Any] | None]:
        """The records and the rows of runs so far, then what is added; a browser opens six streams and no more."""
        known: dict[str, dict[str, Any] | None] = {}
        while True:
            rows = await asyncio.to_thread(self.watched.look)
            yield None
            for run_id, tail in tails.items():
                (anew, new), row = await asyncio.to_thread(tail.read), rows.get(run_id)
                first = run_id not in known
                if first or anew or new or row != known[run_id]:
                    yield {"run": run_id, "anew": anew or first, "records": thinned(new), "row": row}
                known[run_id] = row
            await asyncio.sleep(EVERY)


def make_app(folder: Path) -> Starlette:
    """The application. Requests for other hosts are refused: a page elsewhere must not read runs."""
    pages = Pages(folder)
    return Starlette(
        routes=[
            Route("/", pages.page),
            Route("/static/{name}", pages.static),
            Route("/api/runs", pages.runs),
            Route("/api/changes", pages.changes),
            Route("/api/run/{id:path}", pages.run),
            Route("/api/records", pages.records),
            Route("/file/{path:path}", pages.file),
        ],
        exception_handlers={OSError: _unreadable},
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1"])],
    )


def _give(path: Path) -> Response:
    kind = _TYPES.get(path.suffix, "text/plain")
    response = Response(path.read_bytes(), media_type=kind, headers=_HEADERS)
    if path.name == "report.html":  # one file with its style and pictures inside, and without scripts
        response.headers["Content-Security-Policy"] = _REPORT
    return response


async def _unreadable(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"a file cannot be read: {error}"}, 404, headers=_HEADERS)


def _missing(what: str) -> Response:
    return JSONResponse({"error": f"there is no {what}"}, 404, headers=_HEADERS)


def _stream(events: AsyncIterator[dict[str, Any] | None]) -> Response:
    """Server-sent events; None is said as a comment, so that a connection that is gone is noticed."""

    async def lines() -> AsyncIterator[str]:
        async for event in events:
            yield ": still here\n\n" if event is None else f"data: {json.dumps(event)}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers=_HEADERS)
