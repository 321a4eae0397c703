"""Numbers and names as people read them, the same on every page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trainkit.recorders.history import is_rate

SPLITS = {"train": "training", "val": "validation", "test": "test"}


def form(metric: str, value: float, *, short: bool = False) -> str:
    """A number as its metric is read: shares in percent."""
    if value is None or math.isnan(value):
        return "–"
    if is_rate(metric):
        return f"{100 * value:.4g} %" if short else f"{100 * value:.2f} %"
    return f"{value:.4g}"


def percent(share: float) -> str:
    """99.96 % is not 100 %: nobody is quite sure before rounding."""
    return "> 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds != seconds:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def kind_of(config: Mapping[str, Any], key: str) -> str:
    """The type that a section of a plain config names; the key itself where it names none."""
    spec = config.get(key)
    return str(spec.get("type", key)) if isinstance(spec, Mapping) else str(spec or key)
