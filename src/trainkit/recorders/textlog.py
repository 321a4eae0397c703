"""``train.log``: what the user was told, with the time, and a line for each epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from trainkit.system import durable


class TextLog:
    """A recorder for people: it grows by whole lines, and keeps what earlier processes of the run wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, message: str) -> None:
        now = datetime.now().isoformat(sep=" ", timespec="seconds")
        for line in message.splitlines():
            durable.append_line(self.path, f"{now}  {line}")

    def tee(self, say: Callable[[str], None]) -> Callable[[str], None]:
        """``say`` that also keeps what it says."""

        def tell(message: str) -> None:
            say(message)
            self.write(message)

        return tell

    def log(self, record: Mapping[str, Any]) -> None:
        if record["type"] == "epoch":
            numbers = "  ".join(f"{name} {value:.6g}" for name, value in record.items() if isinstance(value, float))
            self.write(f"epoch {record['epoch']}  {numbers}")

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass
