"""What a check found: details and faults, written to a file at each change, so that a crash leaves what came before."""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Findings:
    """Details of a check by name, and its faults as sentences. Each change is written to ``path`` at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.details: dict[str, Any] = {}
        self.faults: list[str] = []
        self.skipped: str | None = None
        self.write()

    def __setitem__(self, key: str, value: Any) -> None:
        self.details[key] = value
        self.write()

    def fault(self, text: str) -> None:
        self.faults.append(" ".join(str(text).split())[:500])
        self.write()

    def expect(self, holds: bool, name: str, value: Any) -> None:
        """Note ``value`` under ``name``; where the condition does not hold, it is a fault too."""
        self[name] = value
        if not holds:
            self.fault(f"{name}: {value}")

    def skip(self, reason: str) -> None:
        """Say why there was nothing to check."""
        self.skipped = reason
        self.write()

    def write(self, *, ended: bool = False) -> None:
        found = {"details": self.details, "faults": self.faults, "skipped": self.skipped, "ended": ended}
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(found, default=str))
        os.replace(draft, self.path)

    @contextlib.contextmanager
    def case(self, name: str) -> Iterator[None]:
        """A part of a check: an exception in it is a fault, and the next part runs."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  whatever went wrong is what this program is to report
            frames = traceback.extract_tb(error.__traceback__)[-4:]
            where = " ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
            self.details.setdefault(name, f"{type(error).__name__}")
            self.fault(f"{name}: {type(error).__name__}: {str(error)[:300]} [{where}]")
