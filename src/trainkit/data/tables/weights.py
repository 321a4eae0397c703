"""The column of a table that says how much each row counts in the loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Part, Split
from trainkit.data.tables.encoded import Extra
from trainkit.data.tables.encoding import as_numbers
from trainkit.errors import Problem, ProblemsError
from trainkit.wording import SPLITS

if TYPE_CHECKING:
    import polars as pl

WEIGHT_REASON = "the loss is weighted by it"
"""Why a column is not learned from."""


def weight_extra(weight: Mapping[str, Any]) -> Extra:
    """The column as an array beside the inputs; ``weight`` is its entry in the encoding."""
    return Extra(weight["name"], np.float32, partial(_read, name=weight["name"], style=weight["style"]))


def _read(cells: pl.Series, *, name: str, style: dict[str, Any] | None) -> tuple[NDArray[Any], dict[int, str]]:
    weights = as_numbers(cells, style)
    good = ((weights >= 0) & (weights < 1e30)).fill_null(False)
    bad = {}
    for row in (~good).arg_true():
        got = "the cell is missing" if cells[row] is None else f"got {str(cells[row])!r}"
        bad[int(row)] = f"column {name!r}, the weight: {got}; a number from 0 to 1e30 is needed"
    return weights.fill_null(0.0).to_numpy(), bad


def check_weights(parts: Mapping[str, Part], splits: Mapping[str, Split], column: str | None) -> None:
    """Raises ProblemsError where all weights of a split are 0: it has no loss."""
    for name, split in splits.items():
        weights = parts[split.part].weights
        if weights is not None and not weights[split.indices].any():
            message = f"all weights of the {SPLITS[name]} split are 0, so that it has no loss; look at {column!r}"
            raise ProblemsError([Problem(message, key="dataset.weight")])
