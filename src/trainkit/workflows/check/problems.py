"""Mistakes with their places in the config: of one step of the work, or collected from independent checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from trainkit.builders import section_of
from trainkit.config import LoadedConfig
from trainkit.errors import ConfigError, Interrupted, Place, Problem, ProblemsError, UserError

Result = TypeVar("Result")


@contextmanager
def located(loaded: LoadedConfig) -> Iterator[None]:
    """Turn a ProblemsError of deeper code into a ConfigError, with the places of its problems in the config."""
    try:
        yield
    except ConfigError:
        raise
    except ProblemsError as error:
        raise ConfigError([loaded.locate(problem) for problem in error.problems]) from error


@dataclass
class ProblemCollector:
    """Mistakes, each with the config key it belongs to."""

    problems: list[Problem] = field(default_factory=list)

    def catch(self, key: str, check: Callable[[], Result]) -> Result | None:
        """The result of ``check``; None where it raised. A mistake without a key of its own gets ``key``."""
        try:
            return check()
        except Interrupted:
            raise
        except ProblemsError as error:
            self.problems += [replace(problem, key=problem.key or key) for problem in error.problems]
        except UserError as error:
            self.problems.append(Problem(str(error), key))
        return None

    def passes(self, key: str, check: Callable[[], object]) -> bool:
        """Whether ``check`` raises no mistake; one that it raises is kept as in ``catch``."""
        before = len(self.problems)
        self.catch(key, check)
        return len(self.problems) == before

    def sections(self, key: str, check: Callable[[], object]) -> set[str]:
        """The sections of the config in which ``check`` finds mistakes, which are kept as in ``catch``."""
        before = len(self.problems)
        self.catch(key, check)
        return {section_of(problem.key or key) for problem in self.problems[before:]}

    def __bool__(self) -> bool:
        return bool(self.problems)

    def error(self, loaded: LoadedConfig) -> ConfigError:
        """All of them with their places, in the order of the file."""
        located = [loaded.locate(problem) for problem in dict.fromkeys(self.problems)]
        placed = [(problem.place or Place(str(loaded.path)), problem) for problem in located]
        return ConfigError([problem.at(place) for place, problem in sorted(placed, key=lambda pair: pair[0].line or 0)])
