"""Curves of one line of text, for the terminal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-=+*#@"
"""For a terminal without Unicode."""


def sparkline(values: Sequence[float], *, width: int = 32, blocks: str = BLOCKS) -> str:
    """The values as a row of bars, the lowest value the lowest bar; at most ``width`` wide, by means of neighbours.

    A value that is not finite is a blank.
    """
    shown = _squeezed(values, width)
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    step = (high - low) / (len(blocks) - 1) or math.inf
    return "".join(blocks[round((value - low) / step)] if math.isfinite(value) else " " for value in shown)


def _squeezed(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    edges = [len(values) * index // width for index in range(width + 1)]
    groups = [
        [value for value in values[start:end] if math.isfinite(value)] for start, end in itertools.pairwise(edges)
    ]
    return [sum(group) / len(group) if group else math.nan for group in groups]
