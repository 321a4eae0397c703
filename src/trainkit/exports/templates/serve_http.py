"""An HTTP server for one model: requests are gathered into batches while the batch before is computed.

It knows nothing of trainkit. ``serve.py`` of a bundle and ``trainkit serve`` give it a model (``Model``) and options.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import math
import os
import platform
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from serve_batches import Batches, Histogram, Refused, Row
from serve_inputs import Model, read_parameters, read_table, split_parts
from serve_openapi import PATHS, describe_interface, page_headers
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

MAX_PIXELS = 50_000_000
"""Of one picture; it is looked up before the picture is decoded."""
HELD_BYTES = 256 << 20
"""Bodies and decoded pictures of all requests together."""
OPEN_PATHS = ("/health", "/ready", "/")
"""They need no token: what watches a server has none, and the page asks for it."""
LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class Options:
    """As on the command line."""

    host: str = "127.0.0.1"
    port: int = 8000
    max_batch: int = 32
    max_wait_ms: float = 0
    queue: int = 256
    max_body: int = 10_000_000
    timeout: float = 30
    workers: int = 1
    token: str | None = None


class Service:
    """The application: what is asked for, and what is answered."""

    def __init__(self, model: Model, options: Options, page: str) -> None:
        self.model, self.options, self.page = model, options, page
        self.batches = Batches(model.run, max_batch=options.max_batch, max_wait=options.max_wait_ms / 1e3)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.readers = ThreadPoolExecutor(cores, "read")
        self.requests: Counter[tuple[str, int]] = Counter()
        self.latency = Histogram(LATENCY_BOUNDS)
        self.in_flight = self.admitted = self.held = 0
        self.last_request = 0.0
        self.draining = False
        answers = {
            "/predict": self.predict,
            "/health": self.health,
            "/ready": self.ready,
            "/metrics": self.metrics,
            "/info": self.info,
            "/openapi.json": self.openapi,
            "/": self.index,
        }
        routes = [
            Route(path, self.guarded(path, answers[path]), methods=["POST" if path == "/predict" else "GET"])
            for path in PATHS
        ]
        self.app = Starlette(routes=routes, lifespan=self.lifespan, exception_handlers={HTTPException: self.not_found})

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        computing = asyncio.create_task(self.batches.compute())
        yield
        computing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await computing
        self.readers.shutdown(cancel_futures=True)

    def guarded(self, path: str, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """An endpoint with its token checked, its failures as JSON, and its requests counted."""

        async def endpoint(request: Request) -> Response:
            started = time.perf_counter()
            self.in_flight += 1
            try:
                if path not in OPEN_PATHS:
                    self.check_token(request)
                response: Response = await answer(request)
                status = response.status_code
            except Refused as refused:
                status = refused.status
                response = failure(status, refused.reason, refused.headers)
            except ClientDisconnect:
                status = 499
                response = failure(status, "the client has gone")
            finally:
                self.in_flight -= 1
                self.last_request = time.monotonic()
            if self.draining:
                response.headers["connection"] = "close"
            self.requests[path, status] += 1
            if path == "/predict":
                self.latency.add(time.perf_counter() - started)
            return response

        return endpoint

    def check_token(self, request: Request) -> None:
        token = self.options.token
        if token is None:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
        if kind.lower() != "bearer" or not same:
            raise Refused(401, "a token is needed: Authorization: Bearer TOKEN", www_authenticate="Bearer")

    async def not_found(self, request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        self.requests["other", status] += 1
        reason = (
            f"{request.method} {request.url.path} is not served; there are POST /predict, GET {', '.join(PATHS[1:])}"
        )
        return failure(status, reason, getattr(error, "headers", None))

    async def health(self, request: Request) -> Response:
        return as_json({"alive": True})

    async def ready(self, request: Request) -> Response:
        return as_json({"ready": not self.draining}, 503 if self.draining else 200)

    async def info(self, request: Request) -> Response:
        limits = {name: getattr(self.options, name) for name in ("max_batch", "queue", "max_body", "timeout")}
        limits["max_pixels"] = MAX_PIXELS
        versions = {"python": platform.python_version(), "numpy": np.__version__, **self.model.about["versions"]}
        return as_json({**self.model.about, "versions": versions, "limits": limits})

    async def openapi(self, request: Request) -> Response:
        return as_json(describe_interface(self.model, self.options))

    async def index(self, request: Request) -> Response:
        return Response(self.page, media_type="text/html", headers=page_headers(self.page))

    async def metrics(self, request: Request) -> Response:
        lines = ["# TYPE trainkit_requests_total counter"]
        for (path, code), count in sorted(self.requests.items()):
            lines.append(f'trainkit_requests_total{{path="{path}",code="{code}"}} {count}')
        lines += self.latency.lines("trainkit_request_seconds")
        lines += self.batches.sizes.lines("trainkit_batch_size")
        for name, value in (("queue_length", self.admitted), ("held_bytes", self.held)):
            lines += [f"# TYPE trainkit_{name} gauge", f"trainkit_{name} {value}"]
        return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    async def predict(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.options.timeout
        if self.draining:
            raise Refused(503, "the server is stopping", retry_after="1")
        top, resize = read_parameters(request)
        if self.admitted >= self.options.queue:
            raise self.full()
        with contextlib.ExitStack() as held:
            body = await self.read_body(request, deadline, held)
            if self.admitted >= self.options.queue:
                raise self.full()
            self.admitted += 1
            held.callback(self.leave)
            gone = asyncio.ensure_future(wait_until_gone(request))
            held.callback(gone.cancel)
            parts = await split_parts(request.headers, body, self.options.max_body)
            del body
            reading = loop.run_in_executor(self.readers, self.read_samples, parts, resize, deadline, loop)
            samples = await self.in_time(reading, gone, deadline)
            rows = [row for _, row in samples if not isinstance(row, str)]
            self.hold(sum(row.nbytes for row in rows), held)
            outputs: list[Row] = []
            if rows:
                outputs = await self.in_time(held.enter_context(self.batches.added(rows, deadline)), gone, deadline)
        return as_answer(self.model, samples, outputs, top)

    async def in_time(self, result: asyncio.Future[Any], gone: asyncio.Future[None], deadline: float) -> Any:
        """The result, unless the client goes first or the time is over; then nobody waits for it any more."""
        await asyncio.wait({result, gone}, timeout=deadline - result.get_loop().time(), return_when="FIRST_COMPLETED")
        if result.done():
            return result.result()
        result.cancel()
        if gone.done():
            raise ClientDisconnect
        raise Refused(504, f"no answer within {self.options.timeout:g} s")

    def full(self) -> Refused:
        return Refused(429, f"the queue is full ({self.options.queue} requests); try again", retry_after="1")

    def leave(self) -> None:
        self.admitted -= 1

    def hold(self, num_bytes: int, held: contextlib.ExitStack) -> None:
        """Account for memory of a request until it is answered."""

        def release() -> None:
            self.held -= num_bytes

        if self.held + num_bytes > max(HELD_BYTES, 2 * self.options.max_body):
            raise Refused(429, "too much is being read at the same time; try again", retry_after="1")
        self.held += num_bytes
        held.callback(release)

    async def read_body(self, request: Request, deadline: float, held: contextlib.ExitStack) -> bytes:
        """The body, which is counted while it comes."""
        limit = self.options.max_body
        too_large = f"the body is larger than {limit:,} bytes"
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(415, "a packed body (Content-Encoding); send it as it is")
        if int(request.headers.get("content-length", "0")) > limit:
            raise Refused(413, too_large)
        chunks, size = [], 0
        try:
            async with asyncio.timeout_at(deadline):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > limit:
                        raise Refused(413, too_large)
                    self.hold(len(chunk), held)
                    chunks.append(chunk)
        except TimeoutError:
            raise Refused(
                408, f"the body was not complete within {self.options.timeout:g} s", connection="close"
            ) from None
        if not size:
            raise Refused(422, "empty body (0 bytes)")
        return b"".join(chunks)

    def read_samples(
        self,
        parts: Sequence[tuple[str, bytes]],
        resize: bool,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
    ) -> list[tuple[str, Row | str]]:
        """(source, row or the reason why there is none) of all samples. It runs in a thread."""
        samples: list[tuple[str, Row | str]] = []
        size = 0
        for name, data in parts:
            if loop.time() > deadline:
                raise Refused(504, "too late; it was not computed")
            found: list[tuple[str, Row | str]]
            try:
                if self.model.kind == "image":
                    found = [(name, self.model.read_image(data, resize=resize, max_pixels=MAX_PIXELS))]
                else:
                    found = read_table(self.model, name, data)
            except ValueError as error:
                found = [(name, str(error).replace("add --resize", "add ?resize=1 to the address"))]
            samples += found
            size += sum(row.nbytes for _, row in found if not isinstance(row, str))
            if size > HELD_BYTES // 2:
                raise Refused(413, f"more than {HELD_BYTES // 2:,} bytes when decoded; send fewer at once")
        return samples


async def wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def as_answer(model: Model, samples: Sequence[tuple[str, Row | str]], outputs: Sequence[Row], top: int) -> Response:
    """The document of ``trainkit predict --json``; where an input cannot be used, with an error and status 422.

    Of a row it names the columns that were ``filled``: missing cells, and values that the training did not have.
    """
    rest = iter(outputs)
    predictions = [
        {"source": source, "error": row}
        if isinstance(row, str)
        else {"source": source, **named(model, next(rest), top), **filled_in(model.inputs, row)}
        for source, row in samples
    ]
    failed = len(samples) - len(outputs)
    if not failed:
        return as_json({"predictions": predictions})
    message = f"{failed:,} of {len(samples):,} inputs could not be used"
    return as_json({"predictions": predictions, "error": {"message": message}}, 422)


def filled_in(inputs: Sequence[Mapping[str, Any]], row: Row) -> dict[str, list[str]]:
    empty = {
        one["column"]: None
        for one, value in (zip(inputs, row.tolist(), strict=True) if inputs else ())
        if (value == one["categories"] if "categories" in one else math.isnan(value))
    }
    return {"filled": list(empty)} if empty else {}


def named(model: Model, output: Row, top: int) -> dict[str, Any]:
    values = [value if math.isfinite(value) else None for value in output.tolist()]
    if not model.labels:
        return {"values": dict(zip(model.targets, values, strict=True))}
    best = np.argsort(-output, kind="stable")[:top].tolist()
    pairs = [{"label": model.labels[place], "probability": values[place]} for place in best]
    return {**pairs[0], "top": pairs}


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return Response(text.encode("utf-8", "replace"), status, headers, media_type="application/json")


def failure(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    return as_json({"error": {"message": reason}}, status, headers)
