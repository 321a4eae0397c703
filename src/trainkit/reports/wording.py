"""Numbers and names as people read them, the same on every page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trainkit.recorders.history import is_rate


def form(metric: str, value: float, *, short: bool = False) -> str:
    """A number as its metric is read: shares in percent."""
    if value is None or math.isnan(value):
        return "–"
    if is_rate(metric):
        return f"{100 * value:.4g} %" if short else f"{100 * value:.2f} %"
    return f"{value:.4g}"


def kind_of(config: Mapping[str, Any], key: str) -> str:
    """The type that a section of a plain config names; the key itself where it names none."""
    spec = config.get(key)
    return str(spec.get("type", key)) if isinstance(spec, Mapping) else str(spec or key)
