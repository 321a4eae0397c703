"""Data sets and splits with the options of ``HeldOut`` side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trainkit.data import sources, splits, tables
from trainkit.data.folds import Fold
from trainkit.data.splits import HeldOut


def _flat(load: Callable[..., Any]) -> Callable[..., Any]:
    def call(
        *given: Any,
        seed: int,
        val_fraction: float = 0.0,
        test_fraction: float = 0.0,
        fractions: Mapping[str, float] | None = None,
        fold: Fold | None = None,
        **more: Any,
    ) -> Any:
        chosen = {"test": test_fraction, "val": val_fraction} if fractions is None else fractions
        return load(*given, held=HeldOut(chosen, seed, fold), **more)

    return call


load_bundled, make_synthetic = _flat(sources.load_bundled), _flat(sources.make_synthetic)
load_image_folder, load_table = _flat(sources.load_image_folder), _flat(tables.load_table)
split_part = _flat(splits.split_part)


def load_downloaded(*given: Any, val_fraction: float, **more: Any) -> Any:
    return _flat(sources.load_downloaded)(*given, fractions={"val": val_fraction}, **more)
