"""What a sweep searches: ranges and choices by config path, and the overrides that give a path a value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainkit.config.schema import sweep as schema
from trainkit.config.text.nodes import KeyPath, parse_path
from trainkit.config.text.writer import flow


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    """None: every number, or every whole number."""
    integer: bool = False

    @property
    def size(self) -> float:
        """How many values it has."""
        if self.step is None and not self.integer:
            return math.inf
        return round((self.high - self.low) / (self.step or 1)) + 1


@dataclass(frozen=True)
class Choice:
    """One of several plain values."""

    values: tuple[Any, ...]

    @property
    def size(self) -> float:
        return len(self.values)

    @property
    def names(self) -> list[str]:
        """Short names: of whole sections their types, with what tells apart those of one type."""
        types = [_type_of(value) for value in self.values]
        names = []
        for value, name in zip(self.values, types, strict=True):
            alike = [one for one, other in zip(self.values, types, strict=True) if other == name and one != value]
            own = {key: item for key, item in value.items() if key != "type"} if isinstance(value, Mapping) else {}
            told_apart = {key for key, item in own.items() if any(_differs(one, key, item) for one in alike)}
            parts = [f"{key} {flow(own[key])}" for key in own if key in told_apart and alike]
            names.append(" ".join([name, *parts]))
        return [flow(value) if names.count(name) > 1 else name for value, name in zip(self.values, names, strict=True)]


Space = Range | Choice


def _type_of(value: Any) -> str:
    return str(value["type"]) if isinstance(value, Mapping) and "type" in value else flow(value)


def _differs(value: Any, key: str, item: Any) -> bool:
    return not isinstance(value, Mapping) or value.get(key) != item


def spaces_of(sweep: schema.Sweep) -> dict[str, Space]:
    """What is searched, sections before what is below them."""
    return {key: _space_of(sweep.search[key]) for key in sorted(sweep.search, key=lambda key: len(parse_path(key)))}


def _space_of(space: Any) -> Space:
    match space:
        case schema.LogUniform(log_uniform=[low, high]):
            return Range(low, high, log=True)
        case schema.Uniform(uniform=[low, high], step=step):
            return Range(low, high, step=step)
        case schema.Int(int=[low, high], step=step, log=log):
            return Range(low, high, log=log, step=step, integer=True)
    return Choice(tuple(space.choice))


@dataclass(frozen=True)
class Assignment:
    """A value for a path of the config."""

    key: str
    value: Any
    below: KeyPath
    """The part of the path that was inside the value of a sweep's file."""

    @property
    def text(self) -> str:
        """As an override: ``optimizer.lr=0.1``."""
        return f"{self.key}={flow(self.value)}"


def assign(key: str, value: Any, below: KeyPath = ()) -> Iterator[Assignment]:
    """What gives a value to a path of the config.

    A mapping without a ``type`` changes the keys that it has; one with a ``type`` is a whole section.
    """
    merged = isinstance(value, Mapping) and value and "type" not in value
    if merged and all(isinstance(name, str) and not set(name) & set(".[]=") for name in value):
        for name, item in value.items():
            yield from assign(f"{key}.{name}", item, (*below, name))
    else:
        yield Assignment(key, value, below)


def is_below(key: str, other: str) -> bool:
    """Whether a config path is inside what another one names."""
    return len(key) > len(other) and key.startswith(other) and key[len(other)] in ".["
