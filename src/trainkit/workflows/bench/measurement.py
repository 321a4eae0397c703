"""The measurement of one setting. Imports no torch: ``trainkit bench`` reads measurements from its child processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from trainkit.config.text import flow


@dataclass(frozen=True)
class Setting:
    """The keys of the section ``training`` that are varied."""

    precision: str
    channels_last: bool
    compile: bool | str
    batch_size: int

    def changes(self, base: Setting) -> dict[str, Any]:
        """The keys of the section ``training`` in which this differs from ``base``."""
        own, other = asdict(self), asdict(base)
        return {name: own[name] for name in own if own[name] != other[name]}

    def overrides(self, base: Setting) -> list[str]:
        """The arguments of ``--set`` that change ``base`` into this."""
        return [f"training.{name}={flow(value)}" for name, value in self.changes(base).items()]


@dataclass(frozen=True)
class Memory:
    """Megabytes (10^6 bytes)."""

    at_start: float
    """Of the process, before the data were loaded: Python and PyTorch."""
    host: float
    """Of the process, at its peak."""
    device: float | None
    """Of the accelerator, at its peak; None where there is none."""


@dataclass(frozen=True)
class Measurement:
    """The speed of one setting on this machine."""

    setting: Setting
    samples_per_second: float
    """Of training, without validation and checkpoints: the median of several windows of time."""
    spread: tuple[float, float]
    """The slowest and the fastest window."""
    steps_measured: int
    epoch_samples: int
    epochs: int
    compile_seconds: float
    """The extra time of the first steps; 0 where nothing was compiled."""
    memory: Memory
    seconds: dict[str, float]
    """Of an epoch, by phase."""
    machine: dict[str, str]
    convolutional: bool
    notes: list[str] = field(default_factory=list)

    @property
    def run_seconds(self) -> float:
        """Of the whole training, compilation included."""
        return self.compile_seconds + self.epochs * self.epoch_samples / self.samples_per_second

    @classmethod
    def from_json(cls, printed: Mapping[str, Any]) -> Measurement:
        """From the output of ``trainkit bench --single --json``."""
        values = {item.name: printed[item.name] for item in fields(cls)}
        values |= {"setting": Setting(**values["setting"]), "memory": Memory(**values["memory"])}
        return cls(**{**values, "spread": tuple(values["spread"])})
