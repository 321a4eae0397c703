"""stdout and stderr that can be full, closed or gone: the one is an error of the command, the other is none."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

from trainkit.errors import TrainkitError


class OutputError(TrainkitError):
    """stdout cannot be written. What the command wrote into files is there."""


class Stdout(io.TextIOWrapper):
    """Raises OutputError in place of an OSError of which nobody could say where it came from."""

    has_text = False
    """Whether anything was written."""

    def write(self, text: str, /) -> int:
        self.has_text = self.has_text or bool(text)
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _output_error(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _output_error(error) from None


class Stderr(io.TextIOWrapper):
    """A message that cannot be written is lost, and the work goes on."""

    def write(self, text: str, /) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def _output_error(error: OSError) -> OutputError:
    return OutputError(f"stdout cannot be written ({error.strerror}); files that the command wrote are whole")


def guard() -> None:
    """Put these classes in the place of Python's streams, and escape what their encodings do not have."""
    for number, name, kind in ((1, "stdout", Stdout), (2, "stderr", Stderr)):
        if getattr(sys, name) is None:
            open_nowhere(number, name)
        stream = getattr(sys, name)
        if type(stream) is not io.TextIOWrapper:  # something else in a test
            continue
        encoding, each_line, at_once = stream.encoding, stream.line_buffering, stream.write_through
        own = kind(stream.detach(), encoding, "backslashreplace", line_buffering=each_line, write_through=at_once)
        setattr(sys, name, own)
        setattr(sys, f"__{name}__", own)


def open_nowhere(number: int, name: str) -> None:
    """A stream that is closed at the start (``2>&-``) goes nowhere.

    Else the next file that is opened would have its number, and what a library prints would land in that file.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


def drop_the_rest() -> None:
    """What is still in the buffer of stdout goes nowhere, so that the flush at exit is silent."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
