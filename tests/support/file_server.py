"""A server of files on this machine, which can be slow, break off, lie about sizes, and count its answers."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file, and how it is served."""

    data: bytes
    length: int | None = None
    """What Content-Length says; None: the truth. -1: nothing."""
    stop_after: int | None = None
    """Bytes after which the connection ends."""
    seconds: float = 0.0
    """To wait between the parts, of which there are ten."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class FileServer:
    address: str
    files: dict[str, Served]
    requests: list[str] = field(default_factory=list)
    started: threading.Event = field(default_factory=threading.Event)
    """Set when the first part of a file was sent."""

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


@contextmanager
def serving(files: dict[str, Served]) -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            server.requests.append(f"{self.command} {self.path}")
            served = files.get(self.path.removeprefix("/"))
            if served is None or served.status != 200:
                self.send_error(404 if served is None else served.status)
                return
            self.send_response(200)
            length = len(served.data) if served.length is None else served.length
            if length >= 0:
                self.send_header("Content-Length", str(length))
            for name, value in served.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.send_parts(served)

        def send_parts(self, served: Served) -> None:
            data = served.data[: served.stop_after]
            step = max(1, len(data) // 10)
            for start in range(0, len(data), step):
                self.wfile.write(data[start : start + step])
                self.wfile.flush()
                server.started.set()
                time.sleep(served.seconds)

        def log_message(self, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = FileServer(f"http://127.0.0.1:{http.server_address[1]}", files)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
