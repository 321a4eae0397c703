"""The recorders of every run: ``metrics.jsonl``, ``train.log``, and one that passes records on to all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trainkit.system import durable

if TYPE_CHECKING:
    from trainkit.engine import Recorder


_INTACT = "the lines before are intact"
_ENCODER = json.JSONEncoder(separators=(", ", ": "), ensure_ascii=False, allow_nan=False)


class JsonLines:
    """A recorder into a file of one JSON object a line, ``metrics.jsonl``, which a kill at any moment leaves readable.

    Opening the file removes a torn last line. ``log`` writes whole lines; ``sync`` makes all of them durable, and runs
    before a checkpoint of the same step is committed. After a resume from that step, ``truncate_after(step)`` removes
    the records of the lost part of the run, so that each step stands once.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._descriptor: int | None = None
        with durable.writing(path), contextlib.ExitStack() as on_error:
            is_new = not self.path.exists()
            self._descriptor = durable.ops.open(str(self.path), os.O_CREAT | os.O_APPEND | os.O_RDWR)
            on_error.callback(self.close)
            data = self.path.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                durable.ops.truncate(self._descriptor, whole)
            if is_new:
                durable.ops.fsync_folder(str(self.path.parent))
            on_error.pop_all()

    def log(self, record: Mapping[str, Any]) -> None:
        """Add one record; a number that is not finite becomes null."""
        assert self._descriptor is not None, "logged after close()"
        try:
            line = _ENCODER.encode(record)
        except ValueError:
            line = _ENCODER.encode(durable.finite_or_none(record))
        with durable.writing(self.path, intact=_INTACT):
            durable.append_whole(self._descriptor, line.encode() + b"\n")

    def sync(self) -> None:
        """Make every line written so far durable."""
        assert self._descriptor is not None, "synced after close()"
        with durable.writing(self.path, intact=_INTACT):
            try:
                durable.ops.fsync(self._descriptor)
            except OSError:
                self.close()  # the system may have dropped the lines, and a second fsync would report success
                raise

    def truncate_after(self, step: int, *, epochs: int | None = None) -> int:
        """Keep the records whose ``"step"`` is at most ``step`` (and those without one); returns how many went.

        ``epochs`` are the epochs completed: a checkpoint between an epoch's last step and its validation has the step
        of the epoch's record, but not the record itself, which will be written again.
        The file is rewritten under another name and replaced, so a crash leaves the old one or the new one.
        """
        lines = self.path.read_bytes().split(b"\n")
        kept = [line for line in lines if line and _is_kept(line, step, epochs)]
        dropped = sum(1 for line in lines if line) - len(kept)
        if dropped:
            self.close()
            durable.write_bytes(self.path, b"".join(line + b"\n" for line in kept))
            self._descriptor = durable.ops.open(str(self.path), os.O_APPEND | os.O_RDWR)
        return dropped

    def close(self) -> None:
        """Close the file. Only ``sync`` makes its lines durable."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            durable.ops.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _is_kept(line: bytes, step: int, epochs: int | None) -> bool:
    try:
        record = json.loads(line)
    except ValueError:  # zeros or rubbish that a loss of power left in the middle
        return False
    if not isinstance(record, dict):
        return False
    if epochs is not None and record.get("type") == "epoch" and record.get("epoch", 0) > epochs:
        return False
    return not isinstance(record.get("step"), int) or record["step"] <= step


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """The records of a ``JsonLines`` file, without a torn last line; [] where there is no file."""
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    records = []
    for line in lines[:-1]:
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict):
                records.append(record)
    return records


class TextLog:
    """``train.log``, a recorder for people: messages with their time, and a line for each epoch of any process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, message: str) -> None:
        now = datetime.now().isoformat(sep=" ", timespec="seconds")
        for line in message.splitlines():
            durable.append_line(self.path, f"{now}  {line}")

    def tee(self, say: Callable[[str], None]) -> Callable[[str], None]:
        """``say``, which also writes each message here."""

        def say_and_write(message: str) -> None:
            say(message)
            self.write(message)

        return say_and_write

    def log(self, record: Mapping[str, Any]) -> None:
        if record["type"] == "epoch":
            numbers = "  ".join(f"{name} {value:.6g}" for name, value in record.items() if isinstance(value, float))
            self.write(f"epoch {record['epoch']}  {numbers}")

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class Fanout:
    """Several recorders as one. One of the ``others`` that fails is left out from then on, with one warning.

    Args:
        essential: a recorder whose failure ends the run, since no checkpoint may be newer than the log.
        others: displays and trackers, which never stop training.
        warn: called with one line when one of the others has failed.
    """

    def __init__(self, essential: Recorder, others: Sequence[Recorder], *, warn: Callable[[str], None]) -> None:
        self.essential, self.others, self.warn = essential, list(others), warn

    def log(self, record: Mapping[str, Any]) -> None:
        self.essential.log(record)
        self._for_others(lambda other: other.log(record))

    def sync(self) -> None:
        self.essential.sync()
        self._for_others(lambda other: other.sync())

    def close(self) -> None:
        self._for_others(lambda other: other.close())
        self.essential.close()

    def _for_others(self, action: Callable[[Recorder], None]) -> None:
        for other in list(self.others):
            try:
                action(other)
            except Exception as error:  # noqa: BLE001  (a tracker may fail in any way, and training goes on)
                self.others.remove(other)
                self.warn(f"warning: {type(other).__name__} failed and is left out from now on: {error}")
