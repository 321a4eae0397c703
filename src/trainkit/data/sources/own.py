"""Data sets of plug-ins: arrays of each part, checked and split as trainkit's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Dataset, Part, Split, Task, fingerprint_dataset
from trainkit.data.splits import HeldOut, split_part
from trainkit.errors import Problem, ProblemsError
from trainkit.wording import listed

_PARTS = ("train", "val", "test")
_NAMES = ("class_names", "feature_names", "target_names")


def load_own(
    made: Any,
    *,
    name: str,
    kind: Literal["image", "table"],
    task: Task,
    held: HeldOut,
) -> Dataset:
    """The data set of what a plug-in's ``build`` returned.

    ``made`` has inputs and targets for ``train``, and for ``val`` and ``test`` where they are official; else a fraction
    of the training part is held out. With a fold, which is the test split, an official one is left out. Images are
    uint8 (N, C, H, W), tables float32 (N, F); targets are int64 (N,), or float32 (N, T) for regression.
    ``class_names`` are needed for classes, ``feature_names`` and ``target_names`` not.

    Raises:
        ProblemsError: an array or a name is missing, or of another kind.
    """
    if not isinstance(made, Mapping) or "train" not in made or not made.keys() <= {*_PARTS, *_NAMES}:
        got = f"the keys {listed(sorted(map(str, made)))}" if isinstance(made, Mapping) else type(made).__name__
        _fail(
            f"build of {name} has to return a dict with train, and perhaps {listed([*_PARTS[1:], *_NAMES])}, got {got}"
        )
    classes = tuple(map(str, made.get("class_names", ())))
    if (task == "classification") != bool(classes):
        _fail(f"{name}: class_names are for a data set with task classification, and needed there")
    parts = {
        part: _checked(made[part], f"{name}: {part}", kind=kind, num_classes=len(classes))
        for part in _PARTS
        if part in made and not (held.fold and part == "test")
    }
    shapes = {part: (one.inputs.shape[1:], one.targets.shape[1:]) for part, one in parts.items()}  # type: ignore[union-attr]
    if len(set(shapes.values())) > 1:
        _fail(f"{name}: the samples of all parts have one shape, got {shapes}")
    splits = split_part(parts["train"], "train", task=task, held=held.beside(parts), class_names=classes)
    official = [part for part in parts if part != "train"]
    splits |= {part: Split(part, np.arange(len(parts[part]), dtype=np.int64)) for part in official}
    inputs, targets = shapes["train"]
    return Dataset(
        name=name,
        kind=kind,
        task=task,
        parts=parts,
        splits=splits,
        fingerprint=fingerprint_dataset(name, parts, splits, class_names=classes),
        class_names=classes,
        feature_names=_names(made, "feature_names", inputs[0], name=name) if kind == "table" else (),
        target_names=_names(made, "target_names", targets[0], name=name) if task == "regression" else (),
        channels=int(inputs[0]) if kind == "image" else None,
        notes=("its own test set stays out of the folds",) if held.fold and "test" in made else (),
    )


def _checked(given: Any, where: str, *, kind: str, num_classes: int) -> Part:
    """The arrays of a part in trainkit's types. A change of type that loses nothing is made."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        _fail(f"{where} has to be (inputs, targets), got {type(given).__name__}")
    inputs, targets = (np.ascontiguousarray(array) for array in given)
    if kind == "image":
        if inputs.dtype != np.uint8 or inputs.ndim != 4 or inputs.shape[1] not in (1, 3):
            _fail(f"{where}: images are uint8 (N, C, H, W) with 1 or 3 channels, got {_shown(inputs)}")
    elif inputs.ndim != 2 or inputs.dtype.kind not in "fiub":
        _fail(f"{where}: inputs of a table are numbers (N, F), got {_shown(inputs)}")
    else:
        inputs = inputs.astype(np.float32)
        if not np.isfinite(inputs).all():
            _fail(f"{where}: inputs hold NaN or Inf; fill them in")
    if num_classes:
        if targets.ndim != 1 or targets.dtype.kind not in "iu":
            _fail(f"{where}: classes are whole numbers (N,), got {_shown(targets)}")
        targets = targets.astype(np.int64)
        if len(targets) and not 0 <= targets.min() <= targets.max() < num_classes:
            most = num_classes - 1
            _fail(f"{where}: classes are 0 to {most}, by class_names, got {targets.min()} to {targets.max()}")
    else:
        targets = targets[:, None] if targets.ndim == 1 else targets
        if targets.ndim != 2 or targets.dtype.kind not in "fiu" or not np.isfinite(targets).all():
            _fail(f"{where}: values to predict are finite numbers (N,) or (N, T), got {_shown(targets)}")
        targets = targets.astype(np.float32)
    if len(inputs) != len(targets) or not len(inputs):
        _fail(f"{where}: as many targets as inputs, and at least one, got {len(targets)} and {len(inputs)}")
    return Part(inputs, targets)


def _names(made: Mapping[str, Any], key: str, count: int, *, name: str) -> tuple[str, ...]:
    given: Sequence[Any] = made.get(key) or [f"{key[0] if key == 'feature_names' else 'y'}{i}" for i in range(count)]
    if len(given) != count:
        _fail(f"{name}: {key} has to name {count}, got {len(given)}")
    return tuple(map(str, given))


def _shown(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"


def _fail(message: str) -> NoReturn:
    raise ProblemsError([Problem(message, "dataset")])
