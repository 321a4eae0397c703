"""Who hears how it goes, and who may ask for a stop: the same few things for every command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trainkit.system.signals import StopRequest


@dataclass(frozen=True)
class Frontend:
    """What a command line, a notebook or a test gives to a workflow; the default says nothing and never stops."""

    say: Callable[[str], None] = lambda message: None
    """Gets a line for the user now and then."""
    progress: Callable[[int, int], None] | None = None
    """Gets (done, total) while images are decoded, or samples are predicted."""
    make_display: Callable[[Any, int], Any] | None = None
    """For training: given the setup and the batches of an epoch, a recorder that shows the run while it goes on."""
    stop: StopRequest = field(default_factory=StopRequest)
    """Polled after every step; a run saves its state before it ends."""

    def check(self, what: str) -> None:
        """Raises Interrupted where a stop was asked for; ``what`` says what that means."""
        if self.stop():
            raise self.stop.error(what)
