"""A model behind a real server in a process of its own, and requests to it."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import trainkit

SOURCE = Path(trainkit.__file__).parents[1]


class Server:
    """``trainkit serve`` with these arguments, or another command that does the same."""

    def __init__(self, *arguments: object, command: tuple[object, ...] = (sys.executable, "-m", "trainkit", "serve")):
        self.process = subprocess.Popen(
            [*map(str, command), *map(str, arguments), "--port", "0"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{SOURCE}"},
        )
        self.said: list[str] = []
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r" at http://(\S+):(\d+);", line):
                self.host, self.port = found[1], int(found[2])
                break
        else:
            raise AssertionError("".join(self.said))
        self.reading = threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True)
        self.reading.start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        self.reading.join(timeout=10)
        return code

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict | str, dict]:
        """(status, JSON or text, headers)."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            text = answer.read().decode()
            is_json = answer.headers.get("content-type", "").startswith("application/json")
            return answer.status, json.loads(text) if is_json else text, dict(answer.headers)

    def predict(self, body: object, query: str = "", **headers: str) -> tuple[int, dict]:
        return self.ask("POST", f"/predict{query}", body, **headers)[:2]

    def metric(self, name: str, **headers: str) -> float:
        lines = self.ask("GET", "/metrics", **headers)[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{re.escape(name)}[ {{]", line))

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=60)

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024


def form(*files: tuple[str, bytes]) -> tuple[bytes, str]:
    """The body and the content type of a form with these files."""
    parts = [
        b'--sep\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n' % (name.encode(), data)
        for name, data in files
    ]
    return b"".join([*parts, b"--sep--\r\n"]), "multipart/form-data; boundary=sep"
