"""A config as it is written: lines of YAML with their reasons as comments; and how long a training may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainkit.config.text import flow

_COLUMN = 46
"""Where the comments begin, where there is room."""
_WIDTH = 120


@dataclass(frozen=True)
class Line:
    """A line of the config."""

    text: str
    """With its indentation."""
    why: str


@dataclass(frozen=True)
class Speed:
    """What a kind of device computes, about. The same for all machines, so that the same data give the same file."""

    device: str
    multiply_adds: float
    """A second, forward."""


CPU, GPU = Speed("a CPU", 2e10), Speed("a GPU", 2e12)


def quoted(value: object) -> str:
    """A value in YAML on one line."""
    return flow(value)


def render(header: Sequence[str], lines: Sequence[Line]) -> str:
    """The file: a header of comments, then each line with its reason, folded into comments above where it is long."""
    text = [f"# {line}".rstrip() for line in header]
    for line in lines:
        if not line.text.startswith(" ") and not line.text.startswith("#") and len(text) == len(header):
            text.append("")
        padded = f"{line.text:<{_COLUMN}}"
        whole = f"{padded.rstrip() if len(line.text) > _COLUMN else padded}  # {line.why}"
        if len(whole) <= _WIDTH:
            text.append(whole)
        else:
            indent = " " * (len(line.text) - len(line.text.lstrip()))
            text += [*(f"{indent}# {part}" for part in _folded(line.why, _WIDTH - len(indent) - 2)), line.text]
    return "\n".join(text) + "\n"


def _folded(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".lstrip()
    return lines


def choose_epochs(
    num_train: int, *, batch_size: int, multiply_adds: int, minutes: float, speed: Speed, steps: int, most: int
) -> tuple[int, str]:
    """How many epochs the budget allows, and the reason in words.

    Args:
        multiply_adds: of a sample, forward; the backward pass takes twice as many.
        steps: so many optimizer steps are enough.
        most: no more epochs than this.
    """
    steps_per_epoch = math.ceil(num_train / batch_size)
    seconds = num_train * (3 * multiply_adds / speed.multiply_adds + 2e-5)
    allowed = int(minutes * 60 / seconds)
    wanted = min(max(math.ceil(steps / steps_per_epoch), 10), most)
    if allowed >= wanted:
        took = f"{wanted * steps_per_epoch:,} steps"
        return wanted, f"{took}; about {_time(wanted * seconds)} on {speed.device}"
    epochs = max(allowed, 1)
    return epochs, f"what {minutes:g} minutes allow on {speed.device}, about; {wanted} would be better"


def _time(seconds: float) -> str:
    if seconds < 60:
        return "a minute"
    return f"{math.ceil(seconds / 60)} minutes"
