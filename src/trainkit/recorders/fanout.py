"""Several recorders as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainkit.engine import Recorder


class Fanout:
    """Passes everything on to each recorder. One that fails is left out from then on, with one warning.

    Args:
        essential: a recorder whose failure ends the run, since a checkpoint must not know more than the log.
        others: displays and trackers, which never stop training.
        warn: told in one line when one of the others has failed.
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
