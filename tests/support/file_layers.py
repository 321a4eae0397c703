"""File layers for ``durable.ops``: one that records (for simulated losses of power), one that fails, one that kills.

The last is for real processes: ``install_crashes()`` reads ``TRAINKIT_TEST_CRASH`` (``before-link-checkpoint#3``: kill
this process, as ``kill -9`` does, before the third link of a checkpoint). Nothing in ``src/`` knows of it.
"""

import contextlib
import errno
import itertools
import os
import random
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from trainkit.system import durable

REAL = durable.FileOps()
OPERATIONS = [item.name for item in fields(durable.FileOps)]
SYNC_FREE = replace(REAL, fsync=lambda descriptor: None, fsync_folder=lambda folder: None)


def role(path: str) -> str:
    """checkpoint, journal, pointer or the file's own name; a temporary file has the role of what it will become."""
    name = Path(path).name
    temporary = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}-[0-9a-f]{8}-\d+-\w+-\d+\.tmp", name)
    name = temporary[1] if temporary else name
    if name.endswith(".pth"):
        return "checkpoint"
    return {"checkpoints.json": "journal", "best": "pointer", "last": "pointer"}.get(name, name)


class Watched:
    """Calls ``before`` and ``after`` around each operation, with its name and the path that it changes."""

    def __init__(self, real: durable.FileOps = REAL) -> None:
        self.real = real
        self.paths: dict[int, str] = {}

    def ops(self) -> durable.FileOps:
        return durable.FileOps(**{name: self._wrap(name) for name in OPERATIONS})

    def _wrap(self, name: str):
        def call(*arguments):
            path = self.paths.get(arguments[0], "?") if isinstance(arguments[0], int) else arguments[-1]
            if name == "open":
                path = arguments[0]
            self.before(name, str(path), arguments)
            result = getattr(self.real, name)(*arguments)
            if name == "open":
                self.paths[result] = str(path)
            self.after(name, str(path), arguments, result)
            return result

        return call

    def before(self, name: str, path: str, arguments: tuple) -> None: ...

    def after(self, name: str, path: str, arguments: tuple, result: object) -> None: ...


@contextlib.contextmanager
def installed(layer: Watched | durable.FileOps) -> Iterator[None]:
    old, durable.ops = durable.ops, layer.ops() if isinstance(layer, Watched) else layer
    try:
        yield
    finally:
        durable.ops = old


# Injected errors and simulated kills.


class Killed(BaseException):
    """Stands for the end of the process: nothing after it reaches the disk."""


class Failing(Watched):
    """The ``at``-th call of an operation (of all of them: ``any``) fails, after half of its bytes where it writes.

    With ``forever`` the following ones of that operation fail too; with ``kill`` everything after it does.
    """

    def __init__(
        self, operation: str, at: int, *, code: int = errno.ENOSPC, forever=False, kill=False, real=REAL
    ) -> None:
        super().__init__(real)
        self.operation, self.at, self.code, self.forever, self.kill = operation, at, code, forever, kill
        self.count = 0
        self.failed = ""

    def before(self, name, path, arguments):
        if self.kill and self.failed:
            raise Killed
        if self.operation not in (name, "any") or name == "close":
            return
        self.count += 1
        if self.count - 1 == self.at or (self.forever and self.failed):
            self.failed = self.failed or f"{name} {role(path)}"
            if name == "write":
                self.real.write(arguments[0], bytes(arguments[1][: len(arguments[1]) // 2]))
            if self.kill:
                raise Killed
            raise OSError(self.code, os.strerror(self.code))


# Real kills.


class Crashing(Watched):
    """Kills this process at a named point, as ``kill -9`` does; or prints the points that it passes."""

    def __init__(self, point: str) -> None:
        super().__init__()
        self.when, _, rest = point.partition("-")
        self.what, _, number = rest.partition("#")
        self.remaining = int(number or 1)

    def before(self, name, path, arguments):
        if self.when in ("before", "during") and self._reached(name, path):
            if self.when == "during" and name == "write":
                REAL.write(arguments[0], bytes(arguments[1][: len(arguments[1]) // 2]))
            os.kill(os.getpid(), signal.SIGKILL)

    def after(self, name, path, arguments, result):
        if self.when == "after" and self._reached(name, path):
            os.kill(os.getpid(), signal.SIGKILL)

    def _reached(self, name: str, path: str) -> bool:
        what = "fsync_folder" if name == "fsync_folder" else f"{name}-{role(path)}"
        if what == self.what:
            self.remaining -= 1
        return what == self.what and self.remaining == 0


CRASH_POINTS = [
    f"{when}-{what}"
    for what in (
        "open-checkpoint",
        "write-checkpoint",
        "fsync-checkpoint",
        "link-checkpoint",
        "unlink-checkpoint",
        "fsync_folder",
        "open-journal",
        "write-journal",
        "fsync-journal",
        "replace-journal",
        "open-pointer",
        "write-pointer",
        "fsync-pointer",
        "replace-pointer",
    )
    for when in (("before", "during", "after") if what.startswith("write") else ("before", "after"))
]


def install_crashes() -> None:
    """Kill this process at the point that ``TRAINKIT_TEST_CRASH`` names, if it does."""
    point = os.environ.get("TRAINKIT_TEST_CRASH")
    if point:
        durable.ops = Crashing(point).ops()


# Recorded operations, and the disks that a loss of power may leave.


@dataclass
class Event:
    kind: str
    """write, truncate, fsync, name, unname, fsync_folder or mark."""
    inode: int = 0
    name: str = ""
    """The name that appears, goes, or (for a mark) what happened."""
    gone: str | None = None
    """The name that a rename takes away."""
    data: bytes = b""
    length: int = 0
    label: str = ""
    """Which of the fsyncs of a save this is."""


class Recording(Watched):
    """Records what happens in one flat folder, while it really happens."""

    def __init__(self, folder: Path, real: durable.FileOps = SYNC_FREE) -> None:
        super().__init__(real)
        self.folder = folder
        self.events: list[Event] = []
        self.names: dict[str, int] = {}
        self.inodes: dict[int, int] = {}  # by descriptor
        self.numbers = itertools.count()

    def mark(self, text: str) -> None:
        self.events.append(Event("mark", name=text))

    def after(self, name, path, arguments, result):
        here = Path(path).name
        match name:
            case "open":
                if here not in self.names:
                    self.names[here] = next(self.numbers)
                    self.events.append(Event("name", self.names[here], here))
                self.inodes[result] = self.names[here]
            case "write":
                self.events.append(Event("write", self.inodes[arguments[0]], data=bytes(arguments[1][:result])))
            case "truncate":
                self.events.append(Event("truncate", self.inodes[arguments[0]], length=arguments[1]))
            case "fsync":
                self.events.append(Event("fsync", self.inodes[arguments[0]], label=f"fsync {role(path)}"))
            case "link":
                self.names[here] = self.names[Path(arguments[0]).name]
                self.events.append(Event("name", self.names[here], here))
            case "replace":
                source = Path(arguments[0]).name
                self.names[here] = self.names.pop(source)
                self.events.append(Event("name", self.names[here], here, gone=source))
            case "unlink":
                self.names.pop(here, None)
                self.events.append(Event("unname", name=here))
            case "fsync_folder":
                last = next((e for e in reversed(self.events) if e.kind == "name"), None)
                label = f"folder after {role(last.name)}" if last else "folder"
                self.events.append(Event("fsync_folder", label=label))


@dataclass
class Disk:
    """What is surely on the device, and what is only on its way."""

    content: dict[int, bytes] = field(default_factory=dict)
    """By inode: what programs see."""
    synced: dict[int, bytes] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    pending: list[Event] = field(default_factory=list)
    """Changes of names since the last flush of the folder."""

    def apply(self, event: Event) -> None:
        old = self.content.get(event.inode, b"")
        match event.kind:
            case "write":
                self.content[event.inode] = old + event.data
            case "truncate":
                self.content[event.inode] = old[: event.length]
            case "fsync":
                self.synced[event.inode] = old
            case "name" | "unname":
                self.pending.append(event)
            case "fsync_folder":
                self.names = self.with_names(self.pending)
                self.pending = []

    def with_names(self, events: list[Event]) -> dict[str, int]:
        names = dict(self.names)
        for event in events:
            if event.kind == "name":
                names[event.name] = event.inode
            names.pop(event.gone if event.kind == "name" else event.name, None)
        return names

    def states(self, rng: random.Random, count: int) -> Iterator[dict[str, bytes]]:
        """Folders that a loss of power now may leave: any of the changes of names, any of the bytes not yet synced.

        POSIX promises no more than this: file systems that keep an order leave some of these states.
        """
        pending = self.pending
        subsets = [[], pending, pending[-1:], pending[:-1]]
        while len(subsets) < count:
            subsets.append([event for event in pending if rng.random() < 0.5])
        for subset, damage in itertools.product(subsets[:count], ("lost", "zeros", "mixed")):
            names = self.with_names(subset)
            yield {name: self._bytes(inode, rng, damage) for name, inode in names.items()}

    def _bytes(self, inode: int, rng: random.Random, damage: str) -> bytes:
        full, safe = self.content.get(inode, b""), self.synced.get(inode)
        if full == safe:
            return full
        kept = min(len(safe or b""), len(full))
        match damage if damage != "mixed" else rng.choice(["lost", "zeros", "torn", "whole"]):
            case "lost":
                return safe or b""
            case "zeros":  # the new length is on the device, the bytes are not
                return full[:kept] + bytes(len(full) - kept)
            case "torn":
                return full[: rng.randint(kept, len(full))]
        return full


def crash_states(
    events: list[Event], *, seed: int, each: int = 3, without: str | None = None
) -> Iterator[tuple[list[str], dict[str, bytes]]]:
    """For a loss of power after each event: the marks passed so far, and a folder as it may be found; each once.

    ``without`` takes out the fsyncs of one label, as if the program had forgotten them.
    """
    rng = random.Random(seed)
    disk = Disk()
    marks: list[str] = []
    seen: set[int] = set()
    for event in events:
        if event.kind == "mark":
            marks.append(event.name)
        elif without is None or event.label != without:
            disk.apply(event)
        for state in disk.states(rng, each):
            key = hash((tuple(marks), frozenset(state.items())))
            if key not in seen:
                seen.add(key)
                yield list(marks), state
