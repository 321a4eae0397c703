"""The columns of a table as numbers: which are quantities, which are codes of categories.

A stored row holds the numeric columns, NaN where a value is missing, then one code for each categorical column: 0 to
K - 1, and K for a missing value or one that the training has not seen. The model gets the same with the gaps filled,
and between the two a flag (1.0 where the value was missing) for each numeric column with gaps in the training split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROWS = 1 << 16
"""Rows that are looked at at a time."""


@dataclass(frozen=True)
class TableLayout:
    """``numeric`` columns, then a code for each of the ``categories``."""

    numeric: int
    categories: tuple[tuple[int, bool], ...] = ()
    """(K, own) for each categorical column. ``own``: code K, which no known category has, occurs in training and counts
    as one more; otherwise it stands for nothing (all zeros)."""

    @property
    def width(self) -> int:
        """Columns of a row."""
        return self.numeric + len(self.categories)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many categories count for each categorical column: K, or K + 1."""
        return tuple(known + own for known, own in self.categories)

    @property
    def one_hot_width(self) -> int:
        """Columns of a row when each category has one."""
        return self.numeric + sum(self.sizes)


def stored_layout(encoding: Mapping[str, Any] | None) -> TableLayout | None:
    """The layout of stored rows, of a ``Dataset.table_encoding``; None where all columns are numbers without gaps."""
    if encoding is None or "inputs" not in encoding:
        return None
    inputs = encoding["inputs"]
    categories = [(int(each["categories"]), bool(each["own"])) for each in inputs if "categories" in each]
    return TableLayout(len(inputs) - len(categories), tuple(categories))


def model_layout(encoding: Mapping[str, Any] | None) -> TableLayout | None:
    """The layout of what the model gets: with a flag for each column that has gaps."""
    stored = stored_layout(encoding)
    if encoding is None or stored is None:
        return None
    return TableLayout(stored.numeric + len(flagged(encoding)), stored.categories)


def numeric_names(encoding: Mapping[str, Any]) -> list[str]:
    """The names of the numeric columns, in order."""
    return [each["name"] for each in encoding["inputs"] if "categories" not in each]


def offsets(encoding: Mapping[str, Any]) -> list[float]:
    """What was taken off each numeric column in float64 before it was stored as float32."""
    return [float(each["offset"]) for each in encoding["inputs"] if "categories" not in each]


def flagged(encoding: Mapping[str, Any]) -> list[int]:
    """The numeric columns, by position, that have gaps in the training split."""
    numeric = [each for each in encoding["inputs"] if "categories" not in each]
    return [position for position, each in enumerate(numeric) if each.get("missing", False)]


def with_gaps(encoding: Mapping[str, Any], inputs: NDArray[np.float32], indices: NDArray[np.int64]) -> dict[str, Any]:
    """The encoding with ``missing`` for each numeric column: whether it has gaps in these rows, the training split."""
    layout = stored_layout(encoding)
    assert layout is not None, "an encoding with inputs"
    found = np.zeros(layout.numeric, dtype=bool)
    for start in range(0, len(indices), _ROWS):
        found |= np.isnan(inputs[indices[start : start + _ROWS], : layout.numeric]).any(axis=0)
    missing = iter(found.tolist())
    described = [each if "categories" in each else {**each, "missing": next(missing)} for each in encoding["inputs"]]
    return {**encoding, "inputs": described}
