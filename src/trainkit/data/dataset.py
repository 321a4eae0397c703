"""The data set that every source returns: samples in parts, splits by index into the parts, and names.

Its fingerprint, counts and hashes, is stored with a checkpoint and compared when the checkpoint is loaded.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.data.kept_results import KeptResults
from trainkit.data.pixel_rules import DEFAULT_RULES, PixelRules
from trainkit.data.ragged import Ragged
from trainkit.data.target_scale import TargetScale, targets_of_model
from trainkit.wording import SPLITS, counted

Kind = Literal["image", "table"]
Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Part:
    """Samples as the source has them: an official part such as ``"train"`` or ``"test"``, or ``"all"``."""

    inputs: NDArray[Any] | tuple[Path, ...] | Ragged
    """Images: uint8 (N, C, H, W), or float32 in [0, 1] where files have more than 8 bits. Tables: float32 (N, F). Or
    image files that are not decoded yet, or images of their own sizes."""
    targets: NDArray[Any]
    """Classification: int64 (N,). Regression: float32 or float64 (N, T), in their own units."""
    weights: NDArray[np.float32] | None = None
    """How much each sample counts in the loss: (N,), not negative; None: all the same."""

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
    kept: KeptResults | None = field(default=None, repr=False, compare=False)
    """What was computed from these samples before; None: nothing is kept of them."""

    def __len__(self) -> int:
        return len(self.indices)

    def statistic(self, what: str, measure: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """What ``measure`` finds in these samples, from the cache where it was measured before."""
        return measure() if self.kept is None else self.kept.array(what, measure)


@dataclass(frozen=True)
class Dataset:
    """A data set with its splits: ``"train"``, and where there are any ``"val"`` and ``"test"``."""

    name: str
    kind: Kind
    task: Task
    parts: dict[str, Part]
    splits: dict[str, Split]
    fingerprint: dict[str, Any]
    """Plain JSON: a hash and counts for each part, enough to say later what changed. {}: not looked at."""
    class_names: tuple[str, ...] = ()
    """Label k is ``class_names[k]``; () for regression."""
    feature_names: tuple[str, ...] = ()
    """The columns of a table, after one-hot encoding; () for images."""
    target_names: tuple[str, ...] = ()
    """() for classification."""
    target_scale: TargetScale | None = None
    """Regression: mean and standard deviation of each target, by which the model sees them; None: as they are."""
    notes: tuple[str, ...] = ()
    """Printed once: ignored files, skipped files, a choice that was made."""
    table_encoding: dict[str, Any] | None = None
    """Plain JSON: how the columns of a table become inputs."""
    columns: tuple[dict[str, Any], ...] = ()
    """Plain JSON: the name, kind, reason, missing cells and different values of each column of a table's files."""
    channels: int | None = None
    """Images: 1 or 3 as they are decoded, before the static transforms; None for tables."""
    rules: PixelRules = DEFAULT_RULES
    """How image files become pixels. The range of values of more than 8 bits is found when they are materialized."""
    own_sizes: bool = False
    """Images in files that training crops to one size, from their own sizes; others are as evaluation takes them."""
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

    @cached_property
    def model_parts(self) -> dict[str, Part]:
        """The parts with the targets as the model and its loss see them: those of a regression scaled, in float32."""
        if self.task == "classification":
            return self.parts
        return {
            name: replace(part, targets=targets_of_model(part.targets, self.target_scale))
            for name, part in self.parts.items()
        }

    @property
    def num_classes(self) -> int:
        """0 for regression."""
        return len(self.class_names)

    @property
    def num_targets(self) -> int:
        """Values to predict for each sample: 0 for classification."""
        return len(self.target_names)

    @property
    def target_std(self) -> tuple[float, ...]:
        """By which the model's targets are divided; () where they are not."""
        return tuple(std for _, std in self.target_scale or ())

    def split_targets(self, split: str) -> NDArray[Any]:
        """The targets of the samples of a split, in their own units and in the order of its indices."""
        chosen = self.splits[split]
        targets: NDArray[Any] = self.parts[chosen.part].targets[chosen.indices]
        return targets

    def split_weights(self, split: str) -> NDArray[np.float32] | None:
        """The weights of the samples of a split in the loss; None: all the same."""
        chosen = self.splits[split]
        weights = self.parts[chosen.part].weights
        return None if weights is None else weights[chosen.indices]

    def model_targets(self, split: str) -> NDArray[Any]:
        """The same as the model and its loss see them: int64 (n,) or float32 (n, T)."""
        chosen = self.splits[split]
        targets: NDArray[Any] = self.model_parts[chosen.part].targets[chosen.indices]
        return targets

    def class_counts(self, split: str) -> list[int]:
        """How many samples of each class a split holds; [] for regression."""
        if self.task == "regression":
            return []
        found = self.splits[split].statistic(
            "class counts", lambda: np.bincount(self.split_targets(split), minlength=self.num_classes)
        )
        return [int(count) for count in found]

    @property
    def split_names(self) -> list[str]:
        """Train, val and test, those that there are, as messages list them; ``splits`` may have another order."""
        return [name for name in SPLITS if name in self.splits]

    def describe_classes(self, *, limit: int = 10) -> str:
        """``cat 80/10/10, dog 40/5/5 (train/val/test)``: the first classes with their samples.

        "" for regression, and for data that were not looked at.
        """
        if not self.fingerprint:
            return ""
        counts = zip(*map(self.class_counts, self.split_names), strict=True)
        classes = [
            f"{name} {'/'.join(map(str, numbers))}" for name, numbers in zip(self.class_names, counts, strict=True)
        ]
        more = f" and {len(classes) - limit} more" if len(classes) > limit else ""
        return f"{', '.join(classes[:limit])}{more} ({'/'.join(self.split_names)})" if classes else ""


def name_key(name: str) -> str:
    """The same for both forms of an accented letter: macOS takes names apart (NFD), most others compose them (NFC)."""
    return unicodedata.normalize("NFC", name)


def fingerprint_dataset(
    source: str,
    parts: dict[str, Part],
    splits: dict[str, Split],
    *,
    class_names: Sequence[str] = (),
    roots: dict[str, Path] | None = None,
) -> dict[str, Any]:
    """Counts and hashes by part, sizes by split, class names. ``roots``: the folder that file names are relative to.

    Paths are relative and modification times are left out, so a copy of the data has the same fingerprint.
    """
    return {
        "source": source,
        "parts": {
            name: _fingerprint_part(part, class_names, (roots or {}).get(name, Path())) for name, part in parts.items()
        },
        "splits": {
            name: {"samples": len(split), "indices": hash_array(split.indices)} for name, split in splits.items()
        },
        "class_names": list(class_names),
    }


def _fingerprint_part(part: Part, class_names: Sequence[str], root: Path) -> dict[str, Any]:
    described: dict[str, Any] = {"samples": len(part)}
    if isinstance(part.inputs, tuple):
        described["files"] = hash_files(part.inputs, root)
    else:
        assert isinstance(part.inputs, np.ndarray), "as the source has it"
        described["shape"] = [int(size) for size in part.inputs.shape[1:]]
        described["inputs"] = hash_array(part.inputs)
    targets = part.targets
    if targets.dtype == np.float64:  # as the model sees it, and as it always was
        described["exact_targets"] = hash_array(targets)
        targets = targets.astype(np.float32)
    described["targets"] = hash_array(targets)
    if part.weights is not None:
        described["weights"] = hash_array(part.weights)
    if class_names:
        counts = np.bincount(part.targets, minlength=len(class_names))
        described["samples_per_class"] = {name: int(n) for name, n in zip(class_names, counts, strict=True)}
    return described


def hash_array(array: NDArray[Any]) -> str:
    """SHA-256 (32 hex digits of it) of the shape, the type and the bytes."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.hexdigest()[:32]


def hash_files(paths: Sequence[Path], root: Path) -> str:
    """Hash of the relative names and sizes of files, in their order. Files that are gone count as size -1."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            size = os.stat(path).st_size
        except OSError:
            size = -1
        digest.update(os.fsencode(os.path.relpath(path, root)) + b"\0%d\0" % size)
    return digest.hexdigest()[:32]


def describe_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The differences between two fingerprints, a sentence each; [] where there are none."""
    changes = []
    if old.get("source") != new.get("source"):
        changes.append(f"the source was {old.get('source')}, now it is {new.get('source')}")
    if old.get("class_names") != new.get("class_names"):
        changes.append(_describe_names(old.get("class_names", []), new.get("class_names", [])))
    old_parts, new_parts = old.get("parts", {}), new.get("parts", {})
    for name in sorted({*old_parts, *new_parts}):
        if name not in new_parts:
            changes.append(f"the part {name!r} is gone ({counted(old_parts[name]['samples'], 'sample')})")
        elif name not in old_parts:
            changes.append(f"the part {name!r} is new ({counted(new_parts[name]['samples'], 'sample')})")
        else:
            changes.extend(_describe_part(name, old_parts[name], new_parts[name]))
    if not changes:
        changes.extend(_describe_splits(old.get("splits", {}), new.get("splits", {})))
    return changes


def _describe_names(old: Sequence[str], new: Sequence[str]) -> str:
    old, new = list(map(name_key, old)), list(map(name_key, new))
    if old == new:
        return "the names of the classes are written in another Unicode form (NFC, NFD)"
    gone = [name for name in old if name not in new]
    added = [name for name in new if name not in old]
    if not gone and not added:
        return "the classes are in another order"
    changes = [f"classes gone: {', '.join(gone[:10])}"] if gone else []
    changes += [f"new classes: {', '.join(added[:10])}"] if added else []
    return "; ".join(changes)


def _describe_part(name: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    if old["samples"] != new["samples"]:
        per_class = _describe_counts(old.get("samples_per_class", {}), new.get("samples_per_class", {}))
        return [f"part {name!r}: {counted(old['samples'], 'sample')} then, {new['samples']} now{per_class}"]
    names = {
        "shape": "the shape of the inputs",
        "files": "names or sizes of files",
        "contents": "contents of files",
        "inputs": "input values",
        "targets": "targets",
        "exact_targets": "targets",
        "weights": "weights",
    }
    changed = dict.fromkeys(text for key, text in names.items() if key in old and key in new and old[key] != new[key])
    return [f"part {name!r}: {' and '.join(changed)} changed"] if changed else []


def _describe_counts(old: dict[str, int], new: dict[str, int]) -> str:
    changed = [f"{name} {old[name]} -> {new[name]}" for name in old if name in new and old[name] != new[name]]
    return f" ({', '.join(changed[:10])})" if changed else ""


def _describe_splits(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    changes = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            changes.append(f"the split {name!r} is {'gone' if after is None else 'new'}")
        elif before["samples"] != after["samples"]:
            changes.append(f"split {name!r}: {counted(before['samples'], 'sample')} then, {after['samples']} now")
        elif before["indices"] != after["indices"]:
            changes.append(
                f"split {name!r} holds other samples of the same data (another seed, fraction or way to split)"
            )
    return changes
