"""Mistakes with their config keys and places: of one step of the work, or collected from independent checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeVar

from trainkit.builders import section_of
from trainkit.config import LoadedConfig
from trainkit.errors import ConfigError, Place, Problem, ProblemsError, UserError

Result = TypeVar("Result")


def fail(message: str, key: str) -> NoReturn:
    """Raises ProblemsError with one mistake."""
    raise ProblemsError([Problem(message, key)])


@contextmanager
def problems_of(key: str) -> Iterator[None]:
    """Turn every UserError into a ProblemsError; mistakes without a config key get ``key``."""
    try:
        yield
    except ProblemsError as error:
        raise ProblemsError([replace(problem, key=problem.key or key) for problem in error.problems]) from error
    except UserError as error:
        raise ProblemsError([Problem(str(error), key)]) from error


@contextmanager
def located(loaded: LoadedConfig) -> Iterator[None]:
    """Turn a ProblemsError into a ConfigError, with the places of its mistakes in the config."""
    try:
        yield
    except ConfigError:
        raise
    except ProblemsError as error:
        raise placed(error.problems, loaded) from error


def placed(problems: Iterable[Problem], loaded: LoadedConfig) -> ConfigError:
    """Mistakes with their places, in the order of the file."""
    found = [loaded.locate(problem) for problem in dict.fromkeys(problems)]
    pairs = [(problem.place or Place(str(loaded.path)), problem) for problem in found]
    return ConfigError([problem.at(place) for place, problem in sorted(pairs, key=lambda pair: pair[0].line or 0)])


@dataclass
class ProblemCollector:
    """The mistakes of checks that do not depend on each other."""

    problems: list[Problem] = field(default_factory=list)

    def catch(self, key: str, check: Callable[[], Result]) -> Result | None:
        """The result of ``check``; None where it raised. A mistake without a key of its own gets ``key``."""
        try:
            with problems_of(key):
                return check()
        except ProblemsError as error:
            self.problems += error.problems
        return None

    def sections(self, key: str, check: Callable[[], object]) -> set[str]:
        """The sections of the config in which ``check`` finds mistakes, which are kept as in ``catch``."""
        before = len(self.problems)
        self.catch(key, check)
        return {section_of(problem.key or key) for problem in self.problems[before:]}

    def error(self, loaded: LoadedConfig) -> ConfigError:
        """All of them with their places."""
        return placed(self.problems, loaded)
