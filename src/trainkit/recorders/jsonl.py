"""``metrics.jsonl``: one line for each logging step and each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainkit.json_lines import JsonLines


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
