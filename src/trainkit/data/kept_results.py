"""What was computed from the rows of a large table, kept in the cache beside its columns, so that it is computed once.

A result is trusted where the columns are: the files have the path, the size and the times of last change (of bytes and
of name) that they had, and the options are the same. The versions of NumPy and of this module are in its key too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.cache import cached_arrays

_VERSION = 1
"""Raise it when the same rows give other results, so that old ones are not used."""
LARGE_BYTES = 16 << 20
"""The results of smaller arrays are computed sooner than they are read."""

Results = tuple[dict[str, NDArray[Any]], dict[str, Any]]
"""Arrays by name, and plain JSON."""


@dataclass(frozen=True)
class KeptResults:
    """Results for the same rows, by name."""

    cache_dir: Path
    label: str
    rows: dict[str, Any]
    """What the rows depend on, as plain JSON: files, options, fractions and seed."""
    save: bool = True
    """Whether new ones are written."""

    def of_split(self, split: str) -> KeptResults:
        """Results for the rows of one split."""
        return replace(self, rows={**self.rows, "split": split})

    def get(self, what: str, compute: Callable[[], Results]) -> Results:
        """The results of ``compute``, from the cache where they are there."""
        description = {"kind": what, "version": _VERSION, "numpy": np.__version__, "rows": self.rows}
        return cached_arrays(self.cache_dir, f"{self.label} {what}", description, compute, save=self.save)

    def array(self, what: str, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The same for one array."""
        return self.get(what, lambda: ({"result": compute()}, {}))[0]["result"]
