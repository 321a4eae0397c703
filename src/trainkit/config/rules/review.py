"""The input of the rules and the violations that they add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trainkit.config.help.messages import shown
from trainkit.config.schema import Config
from trainkit.config.schema.splits import DatasetInfo
from trainkit.config.text.nodes import parse_path


@dataclass(frozen=True)
class RuleViolation:
    """A rule that a config breaks; ``keys`` are all the places that it looks at."""

    key: str
    message: str
    keys: tuple[str, ...]


@dataclass
class Review:
    """A config under review. ``where`` turns a key into the place where it was written, or ``default``."""

    config: Config
    dataset: DatasetInfo
    where: Callable[[str], str] | None = None
    violations: list[RuleViolation] = field(default_factory=list)

    def see(self, key: str) -> str:
        """Another place of the config with its value: ```training.epochs: 5` (line 14)``."""
        value: Any = self.config
        for piece in parse_path(key):
            value = value[piece] if isinstance(piece, int) else getattr(value, piece)
        text = value if isinstance(value, str) else shown(value)
        return f"`{key}: {text}`" + (f" ({self.where(key)})" if self.where is not None else "")

    def add(self, key: str, message: str, *others: str) -> None:
        """A broken rule at ``key``. ``others`` are the other places that it looks at; ``{0}``, ``{1}`` show them."""
        filled = message
        for index, other in enumerate(others):
            filled = filled.replace(f"{{{index}}}", self.see(other))
        self.violations.append(RuleViolation(key, filled, (key, *others)))
