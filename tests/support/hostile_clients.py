"""Requests to a server of pictures of which some are hostile.

python tests/support/hostile_clients.py [REQUESTS]     10,000 of them, with what the server answered and its memory
"""

import collections
import io
import itertools
import random
import socket
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from served import Server, form
from small_bundles import SIZE, image_bundle

CLIENTS = 16
HOSTILE = 0.05
HEAD = b"POST /predict HTTP/1.1\r\nHost: here\r\n"


def picture(seed: int, format: str = "JPEG", size: int = SIZE) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def bomb(width: int) -> bytes:
    """A small PNG whose header promises width x width pixels."""
    data = bytearray(picture(0, "PNG"))
    data[16:24] = width.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def real_bomb() -> bytes:
    """25 million black pixels in a few kB: they are decoded."""
    file = io.BytesIO()
    Image.new("1", (5000, 5000)).save(file, "PNG")
    return file.getvalue()


def status_of(connection: socket.socket) -> int:
    """The status of the answer; 0 where the connection ends without one."""
    try:
        start = connection.recv(4096)
    except OSError:
        return 0
    return int(start[9:12]) if start.startswith(b"HTTP/1.1 ") else 0


def raw(server: Server, *pieces: bytes, pause: float = 0, end: str = "wait") -> int:
    with server.connect() as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            if end == "half":
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server has closed; an answer may be there to be read
        return 0 if end == "close" else status_of(connection)


def hostile(server: Server, kind: int, seed: int) -> int:
    data = picture(seed)
    sized = HEAD + b"Content-Length: %d\r\n\r\n" % len(data)
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    body, boundary = form(("a", data[:300]), ("b", bomb(60_000)))
    match kind:
        case 0:
            return server.predict(data[: random.Random(seed).randrange(len(data))] or b"\xff")[0]
        case 1:
            return raw(server, HEAD + b"Content-Length: 50000000\r\n\r\n", *([bytes(1_000_000)] * 50))
        case 2:
            return raw(server, chunked, *([b"f4240\r\n" + bytes(1_000_000) + b"\r\n"] * 50), b"0\r\n\r\n")
        case 3:
            return server.predict(bomb(10_000))[0]
        case 4:
            return server.predict(real_bomb())[0]
        case 5:
            return server.predict(b'[{"column": 1}]', content_type="application/json")[0]
        case 6:
            return raw(server, sized + data[:100], end="half")
        case 7:
            return raw(server, sized + data, end="close")
        case 8:
            return raw(server, sized, *(bytes([byte]) for byte in data[:20]), pause=0.05, end="close")
        case 9:
            return raw(server, chunked + b"zz\r\nnonsense\r\n")
        case 10:
            return raw(server, chunked + b"ffffffffffffffffffff\r\nx")
        case 11:
            return raw(server, HEAD, *(b"x-%d: %s\r\n" % (number, b"y" * 1000) for number in range(200)))
        case 12:
            return raw(server, b"\x16\x03\x01 no HTTP at all\r\n\r\n")
        case 13:
            return server.predict(body, content_type=boundary)[0]
        case 14:
            return server.predict(body[:-20], content_type=boundary.replace("sep", "other"))[0]
        case _:
            return raw(server, HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef")


KINDS = 16


def attack(server: Server, requests: int) -> collections.Counter[tuple[str, int]]:
    """How often each status came, of plain and of hostile requests; a plain answer that is wrong counts as -1."""
    plain = [picture(seed, "PNG") for seed in range(8)]
    expected = [server.predict(data)[1] for data in plain]
    numbers = iter(range(requests))
    counts: collections.Counter[tuple[str, int]] = collections.Counter()
    lock = threading.Lock()
    step = round(1 / HOSTILE)

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            if number % step:
                status, answer = server.predict(plain[number % 8])
                near = status != 200 or same(answer, expected[number % 8])
                found = ("plain", status if near else -1)
            else:
                found = (f"hostile {number // step % KINDS}", hostile(server, number // step % KINDS, number))
            with lock:
                counts[found] += 1

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def same(answer: dict, expected: dict) -> bool:
    pairs = zip(answer["predictions"][0]["top"], expected["predictions"][0]["top"], strict=True)
    return all(
        one["label"] == two["label"] and abs(one["probability"] - two["probability"]) < 1e-5 for one, two in pairs
    )


def settled(server: Server) -> bool:
    """Whether nothing is queued or held soon after the last request."""
    for _ in range(100):
        if not server.metric("trainkit_queue_length") and not server.metric("trainkit_held_bytes"):
            return True
        time.sleep(0.05)
    return False


def main(requests: int) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(image_bundle(Path(folder) / "bundle"), "--timeout", "5") as server,
    ):
        attack(server, 2 * KINDS * round(1 / HOSTILE))
        before = server.memory()
        counts = attack(server, requests)
        for (kind, status), count in sorted(counts.items()):
            print(f"{kind:12} {status:4} {count:6}")
        print(f"settled: {settled(server)}; memory: {before / 1e6:.0f} MB, then {server.memory() / 1e6:.0f} MB")
        print("exit code", server.stop(), *itertools.islice(server.said, 20), sep="\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
