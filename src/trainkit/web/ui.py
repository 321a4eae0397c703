"""``trainkit ui``: runs and sweeps in the browser, live. Read-only, for this machine alone, without torch."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.errors import UserError
from trainkit.web.watch import Tail, Watched, details, file_of, thinned

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HOST = "127.0.0.1"
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
_TYPES = {".html": "text/html", ".png": "image/png", ".css": "text/css", ".js": "text/javascript"}


def show(folder: Path, *, port: int) -> None:
    """Serve the pages until a signal.

    Raises:
        UserError: there is no such folder, the port is taken, or the extra is not installed.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give one with runs in it, or in its runs/")
    try:
        import uvicorn
    except ImportError:
        raise UserError("the pages need starlette and uvicorn: pip install 'trainkit[web]'") from None
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen(128)  # from here on a browser may come
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror}; another one: --port 0 takes any that is free") from None
        print(f"http://{HOST}:{listener.getsockname()[1]} shows {folder}; Ctrl-C ends it", flush=True)
        # Streams of a page that is open never end by themselves: they are cut after a second.
        config = uvicorn.Config(make_app(folder), log_level=logging.CRITICAL, timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[listener])


def make_app(folder: Path) -> Starlette:
    """The pages and what they ask for. Requests for other hosts are refused: a page elsewhere must not read runs."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.responses import Response as Plain
    from starlette.routing import Route

    watched = Watched(folder.resolve())

    def give(content: bytes | str, suffix: str, status: int = 200) -> Response:
        kind = _TYPES.get(suffix, "text/plain")
        text = kind if kind.startswith("image/") else f"{kind}; charset=utf-8"
        return Plain(content, status, media_type=None, headers={**_HEADERS, "Content-Type": text})

    def missing(what: str) -> Response:
        return JSONResponse({"error": f"there is no {what}"}, 404, headers=_HEADERS)

    async def page(request: Request) -> Response:
        return give(_read("ui.html"), ".html")

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name == "page.css":
            return give(_STYLES.read_bytes(), ".css")
        return give(_read(name), Path(name).suffix) if name in ("ui.js", "charts.js", "ui.css") else missing(name)

    async def runs(request: Request) -> Response:
        await asyncio.to_thread(watched.look)
        return JSONResponse({"root": str(watched.root), "runs": watched.rows()}, headers=_HEADERS)

    async def run(request: Request) -> Response:
        found = await asyncio.to_thread(watched.find, request.path_params["id"])
        if found is None:
            return missing("such run")
        return JSONResponse(await asyncio.to_thread(details, found), headers=_HEADERS)

    async def file(request: Request) -> Response:
        run_id, _, name = request.path_params["path"].partition("/-/")
        found = await asyncio.to_thread(watched.find, run_id)
        path = watched.page_of(run_id) if not name else None if found is None else file_of(found, name)
        if path is None:
            return missing("such file")
        response = give(await asyncio.to_thread(path.read_bytes), path.suffix)
        if path.suffix == ".html":  # a report is one file with its style and pictures inside, and without scripts
            response.headers["Content-Security-Policy"] = (
                "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
            )
        return response

    async def changes(request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            while True:
                change = await asyncio.to_thread(watched.look)
                if change.rows or change.gone:
                    yield _event({"rows": change.rows, "gone": change.gone})
                else:
                    yield ": still here\n\n"
                await asyncio.sleep(EVERY)

        return StreamingResponse(events(), media_type="text/event-stream", headers=_HEADERS)

    async def records(request: Request) -> Response:
        found = await asyncio.to_thread(watched.find, request.path_params["id"])
        if found is None:
            return missing("such run")

        async def events() -> AsyncIterator[str]:
            tail = Tail(found.metrics)
            first = True
            while True:
                anew, new = await asyncio.to_thread(tail.read)
                if first or anew or new:
                    yield _event({"anew": anew or first, "records": thinned(new)})
                    first = False
                else:
                    yield ": still here\n\n"
                await asyncio.sleep(EVERY)

        return StreamingResponse(events(), media_type="text/event-stream", headers=_HEADERS)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/static/{name}", static),
            Route("/api/runs", runs),
            Route("/api/changes", changes),
            Route("/api/run/{id:path}", run),
            Route("/api/records/{id:path}", records),
            Route("/file/{path:path}", file),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1"])],
    )


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


@cache
def _read(name: str) -> bytes:
    return (_TEMPLATES / name).read_bytes()
