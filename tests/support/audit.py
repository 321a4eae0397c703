"""What Python does meanwhile, by its audit events: imports, calls of other programs, connections."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

RUNS_CODE = ("import", "exec", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class")
CONNECTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")
_watched: list[tuple[tuple[str, ...], list[str]]] = []


def _hook(event: str, arguments: tuple) -> None:
    for events, seen in _watched:
        if event in events:
            seen.append(f"{event} {arguments[0]}")


sys.addaudithook(_hook)


@contextmanager
def noticed(events: tuple[str, ...]) -> Iterator[list[str]]:
    """The events that happen in the block."""
    seen: list[str] = []
    _watched.append((events, seen))
    try:
        yield seen
    finally:
        _watched.remove((events, seen))
