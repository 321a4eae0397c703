"""``metrics.jsonl``: one record a line, each written whole; the recorder of a run, and reading lines back."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from trainkit.system import durable


@functools.cache
def _encoder() -> json.JSONEncoder:
    return json.JSONEncoder(separators=(", ", ": "), ensure_ascii=False, allow_nan=False)


class JsonLines:
    """A file of one JSON object a line, such as ``metrics.jsonl``, that survives being killed at any moment.

    A torn last line is taken off when the file is opened. ``append`` writes whole lines; ``sync`` makes all of them
    durable, which is called before a checkpoint of the same step is committed. After a resume from that step,
    ``truncate_after(step)`` removes what the lost part of the run had written, so that each step stands once.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            is_new = not self.path.exists()
            self._descriptor: int | None = durable.ops.open(str(self.path), os.O_CREAT | os.O_APPEND | os.O_RDWR)
            try:
                self._take_off_torn_line()
                if is_new:
                    durable.ops.fsync_folder(str(self.path.parent))
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise durable.WriteError(path, error) from error

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record; a number that is not finite becomes null."""
        assert self._descriptor is not None, "appended after close()"
        try:
            line = _encoder().encode(record)
        except ValueError:
            line = _encoder().encode(durable.finite_or_none(record))
        try:
            durable.append_whole(self._descriptor, line.encode() + b"\n")
        except OSError as error:
            raise durable.WriteError(self.path, error, intact="the lines before are intact") from error

    def sync(self) -> None:
        """Make every line written so far durable."""
        assert self._descriptor is not None, "synced after close()"
        try:
            durable.ops.fsync(self._descriptor)
        except OSError as error:
            self.close()  # the system may have dropped the lines: a second fsync would say that all is well
            raise durable.WriteError(self.path, error, intact="the lines before are intact") from error

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
        """Close the file; what was appended is in the hands of the system, durable only after ``sync``."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            durable.ops.close(descriptor)

    def _take_off_torn_line(self) -> None:
        assert self._descriptor is not None
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            durable.ops.truncate(self._descriptor, whole)

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
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                records.append(record)
    return records


class JsonlRecorder:
    """Appends every record as one line; a line is whole or absent, and durable before the next checkpoint is.

    Args:
        step, epochs: where the run goes on. What a crashed process logged beyond is taken off, so that each step
            stands in the file once.
    """

    def __init__(self, path: Path, *, step: int, epochs: int) -> None:
        self.lines = JsonLines(path)
        self.lines.truncate_after(step, epochs=epochs)

    def log(self, record: Mapping[str, Any]) -> None:
        self.lines.append(record)

    def sync(self) -> None:
        self.lines.sync()

    def close(self) -> None:
        self.lines.close()
