"""The processes of an HTTP server: the socket, connections that take too long, signals, workers."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import h11
import numpy as np
import uvicorn
from serve_http import Options, Service
from serve_inputs import Model
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_BYTES = 16 << 10
HEADER_SECONDS = 10
"""How long a connection may take for the headers of a request, or for a body that is not read any more."""
QUIET_SECONDS, DRAIN_SECONDS = 0.3, 3
"""After a signal the last connections are closed when nobody has asked for so long, or so long after the signal."""
WORKER_SECONDS = 5
M_MMAP_THRESHOLD = -3
"""In malloc.h."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def listen(options: Options) -> socket.socket:
    """The socket, bound and listening. Raises ValueError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"--port {options.port}: another program listens there; give another --port") from None
        raise ValueError(f"--host {options.host} --port {options.port}: {error.strerror}") from None
    return found


class Connection(H11Protocol):
    """A connection that is closed where its headers, or a body that was refused, take too long."""

    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.watch()

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except h11.ProtocolError:  # nonsense in the middle of an answer
            self.transport.abort()
        self.watch()

    def watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.unwatch()
        elif self.timer is None:
            self.timer = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def unwatch(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.unwatch()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """It answers what is in flight after a signal, and then ends well; a second signal ends it at once."""

    service: Service
    welcome: str
    """What is said when requests are answered."""
    since: float
    """When it was asked to stop."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        say(self.welcome)

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.drain, number)
        yield

    def drain(self, number: int) -> None:
        if self.service.draining:
            os._exit(128 + number)
        self.service.draining = True
        self.since = time.monotonic()
        say("stopping: what is in flight is answered")

    async def on_tick(self, counter: int) -> bool:
        service = self.service
        if service.draining and not service.in_flight:
            now = time.monotonic()
            self.should_exit = now - service.last_request > QUIET_SECONDS or now - self.since > DRAIN_SECONDS
        return await super().on_tick(counter)


def warm_up(model: Model, max_batch: int) -> None:
    """A first batch of each end, so that no request pays for what is done once."""
    example = model.example()
    for size in {1, max_batch}:
        model.run(np.stack([example] * size))


def give_memory_back() -> None:
    """Have glibc return what large arrays took when they are freed; else a few large pictures stay for ever."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)


def run_server(make_model: Callable[[], Model], options: Options, page: str) -> int:
    """Serve until a signal; returns the exit code.

    Args:
        make_model: called in each process that serves.

    Raises:
        ValueError: the address cannot be used, or the model cannot be loaded.
    """
    listener = listen(options)
    give_memory_back()
    if options.workers > 1:
        return run_workers(lambda: serve_one(make_model, options, page, listener), options.workers)
    serve_one(make_model, options, page, listener)
    return 0


def serve_one(make_model: Callable[[], Model], options: Options, page: str, listener: socket.socket) -> None:
    model = make_model()
    warm_up(model, options.max_batch)
    service = Service(model, options, page)
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    config = uvicorn.Config(
        service.app,
        http=Connection,
        loop="asyncio",
        ws="none",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        lifespan="on",
        h11_max_incomplete_event_size=HEADER_BYTES,
        limit_concurrency=max(1024, 4 * options.queue),
    )
    server = Server(config)
    server.service = service
    host, port = listener.getsockname()[:2]
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if options.host not in LOOPBACK and options.token is None:
        say(f"warning: everybody who reaches {where} can use it; --token-file FILE asks for a token")
    server.welcome = f"serving {model.about['name']} ({model.about['program']}) at {where}; Ctrl-C ends it"
    asyncio.run(server.serve(sockets=[listener]))
    say(f"stopped: {sum(service.requests.values()):,} requests were answered")


def run_workers(serve: Callable[[], None], count: int) -> int:
    """Processes that take turns at one socket. One that dies is replaced, unless it died soon after its start."""
    started: dict[int, float] = {}
    stopping = False

    def stop(*_: Any) -> None:
        nonlocal stopping
        stopping = True
        for child in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)

    def start() -> None:
        if child := os.fork():
            started[child] = time.monotonic()
            return
        code = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal; the first process passes it on
            serve()
            code = 0
        except ValueError as error:
            say(f"error: {error}")
            code = 2
        except Exception as error:  # noqa: BLE001  (a worker ends here, whatever it was)
            say(f"error: {type(error).__name__}: {error}")
        finally:
            os._exit(code)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    worst = 0
    for _ in range(count):
        start()
    while started:
        child, status = os.wait()
        lived, code = time.monotonic() - started.pop(child), os.waitstatus_to_exitcode(status)
        if stopping:
            worst = max(worst, abs(code))
        elif lived < WORKER_SECONDS:
            worst = abs(code) or 1
            stop()
        else:
            say(f"worker {child} ended with {code}; another one is started")
            start()
    return worst


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
