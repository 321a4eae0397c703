"""The errors that trainkit shows to its users.

Every message says where the mistake is, what was found, what was expected, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainkit.wording import closest


@dataclass(frozen=True)
class Place:
    """A position in a file (1-based line and column) or, with ``line=None``, a name: ``--set optimizer.lr=x``."""

    file: str
    line: int | None = None
    column: int | None = None
    text: str | None = None
    """The offending line as the user wrote it, for the caret below the message."""

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.line and self.column) if part is not None)


@dataclass(frozen=True)
class Problem:
    """One mistake. ``key`` is a config path such as ``model.layers[3].in_features``; the place may be added later."""

    message: str
    key: str | None = None
    place: Place | None = None
    others: tuple[str, ...] = ()
    """Further config paths that the mistake depends on."""
    also: tuple[Place, ...] = ()
    """Further places to look at."""

    def at(self, place: Place | None) -> Problem:
        return replace(self, place=place)

    def __str__(self) -> str:
        return ": ".join(str(part) for part in (self.place, self.key, self.message) if part is not None)


class TrainkitError(Exception):
    """Something failed while trainkit was working (exit code 1). The message is complete: no traceback is shown."""

    exit_code = 1


class UserError(TrainkitError):
    """The user's input is wrong, and this was found before any work was done (exit code 2)."""

    exit_code = 2


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Raise UserError for an argument that is none of the known words."""
    if value not in known:
        near = closest(str(value), known)
        hint = f"; did you mean {near}?" if near else ""
        raise UserError(f"{name}: expected one of {', '.join(known)}, got {value!r}{hint}")


class ProblemsError(UserError):
    """Several mistakes in one input, in the order in which they stand in the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        assert problems, "an error without a problem"
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigError(ProblemsError):
    """Mistakes in a config file or in overrides of it."""


class DataError(UserError):
    """The data set is missing, broken, or not what the config says."""


class CheckpointError(UserError):
    """A checkpoint is damaged, hostile, or does not belong to this model."""


class Interrupted(TrainkitError):
    """A signal asked the process to stop; work was saved at a step boundary."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class SharedError(TrainkitError):
    """All processes of the run raise it at the same step."""


class LostRank(TrainkitError):
    """Another process of the run is gone, or has not answered in time."""
