"""The data set that every source returns: samples in parts, splits by index into the parts, and names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["image", "table"]
Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Part:
    """Samples as the source has them: an official part such as ``"train"`` or ``"test"``, or ``"all"``."""

    inputs: NDArray[Any] | tuple[Path, ...]
    """Images: uint8 (N, C, H, W). Tables: float32 (N, F). Or image files that are not decoded yet."""
    targets: NDArray[Any]
    """Classification: int64 (N,). Regression: float32 (N, T)."""

    def __post_init__(self) -> None:
        assert len(self.inputs) == len(self.targets), (len(self.inputs), len(self.targets))

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def is_files(self) -> bool:
        """Whether the inputs are image files that are still to be decoded."""
        return isinstance(self.inputs, tuple)


@dataclass(frozen=True)
class Split:
    """Samples of a part by index, so that the validation split comes out of a part without a copy."""

    part: str
    indices: NDArray[np.int64]
    """int64 (n,), sorted ascending."""

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Dataset:
    """A data set with its splits: ``"train"``, and where there are any ``"val"`` and ``"test"``."""

    name: str
    kind: Kind
    task: Task
    parts: dict[str, Part]
    splits: dict[str, Split]
    fingerprint: dict[str, Any]
    """Plain JSON: a hash and counts for each part, enough to say later what changed."""
    class_names: tuple[str, ...] = ()
    """Label k is ``class_names[k]``; () for regression."""
    feature_names: tuple[str, ...] = ()
    """The columns of a table, after one-hot encoding; () for images."""
    target_names: tuple[str, ...] = ()
    """() for classification."""
    notes: tuple[str, ...] = ()
    """Printed once: ignored files, skipped files, a choice that was made."""
    table_encoding: dict[str, Any] | None = None
    """Plain JSON: how the raw columns of a CSV file become features."""
    channels: int | None = None
    """Images: 1 or 3 as they are decoded, before the static transforms; None for tables."""
    max_bad_files: int = 0
    """How many image files may turn out to be unreadable; they are then taken out of the splits and noted."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) or (F,). Known once the inputs are arrays.

        Raises:
            ValueError: The inputs are files that were not decoded yet.
        """
        inputs = self.parts[self.splits["train"].part].inputs
        if isinstance(inputs, tuple):
            raise ValueError(f"the images of {self.name} are not decoded yet: call materialize_images first")
        return tuple(int(size) for size in inputs.shape[1:])

    @property
    def num_classes(self) -> int:
        """0 for regression."""
        return len(self.class_names)

    @property
    def num_targets(self) -> int:
        """Values to predict for each sample: 0 for classification."""
        return len(self.target_names)

    def split_targets(self, split: str) -> NDArray[Any]:
        """The targets of the samples of a split, in the order of its indices."""
        chosen = self.splits[split]
        targets: NDArray[Any] = self.parts[chosen.part].targets[chosen.indices]
        return targets

    def class_counts(self, split: str) -> list[int]:
        """How many samples of each class a split holds; [] for regression."""
        if self.task == "regression":
            return []
        return [int(count) for count in np.bincount(self.split_targets(split), minlength=self.num_classes)]
