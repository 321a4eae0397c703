"""What a config alone says about its data: kind, task, classes, sizes. None where only the data can say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from trainkit.config.schema import Config
from trainkit.config.schema import data as schema

_BUNDLED: dict[str, tuple[int, int, int]] = {  # samples, features, classes
    "iris": (150, 4, 3),
    "wine": (178, 13, 3),
    "breast_cancer": (569, 30, 2),
    "diabetes": (442, 10, 0),
}
_IMAGES: dict[str, tuple[int, tuple[int, int, int], int]] = {  # training samples, (C, H, W), classes
    "digits": (1797, (1, 8, 8), 10),
    "mnist": (60_000, (1, 28, 28), 10),
    "fashion_mnist": (60_000, (1, 28, 28), 10),
    "kmnist": (60_000, (1, 28, 28), 10),
    "cifar10": (50_000, (3, 32, 32), 10),
    "cifar100": (50_000, (3, 32, 32), 100),
}


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is opened."""

    kind: Literal["image", "table"]
    task: Literal["classification", "regression"] | None = None
    num_classes: int | None = None
    num_targets: int | None = None
    num_features: int | None = None
    image_shape: tuple[int | None, int | None, int | None] = (None, None, None)
    """(C, H, W) as stored, before any transform."""
    num_train: int | None = None
    """Samples of the training split."""


def info_of(config: Config) -> DatasetInfo:
    """The facts of a config's data set. Split sizes are rounded as the splitting does: floor(f * n + 0.5)."""
    spec = config.dataset
    name = spec.type
    if name in _IMAGES:
        count, shape, classes = _IMAGES[name]
        return DatasetInfo("image", "classification", classes, None, None, shape, _num_train(spec, count))
    if name in _BUNDLED:
        count, features, classes = _BUNDLED[name]
        task: Literal["classification", "regression"] = "classification" if classes else "regression"
        targets = None if classes else 1
        return DatasetInfo("table", task, classes or None, targets, features, num_train=_num_train(spec, count))
    if isinstance(spec, schema.Synthetic):
        return _synthetic(spec.problem, _num_train(spec, spec.num_samples))
    if isinstance(spec, schema.ImageFolder):
        channels = {"rgb": 3, "gray": 1}.get(spec.color)
        return DatasetInfo("image", "classification", image_shape=(channels, None, None))
    assert isinstance(spec, schema.Csv)
    return DatasetInfo("table", None if spec.task == "auto" else spec.task, num_targets=1)


def _num_train(spec: Any, count: int) -> int:
    test_fraction: float = getattr(spec, "test_fraction", 0.0)
    val_fraction: float = spec.val_fraction
    rest = count - math.floor(test_fraction * count + 0.5)
    return rest - math.floor(val_fraction * rest + 0.5)


def _synthetic(problem: Any, num_train: int) -> DatasetInfo:
    if isinstance(problem, schema.LinearRegression):
        targets, features = problem.num_targets, problem.num_features
        return DatasetInfo("table", "regression", None, targets, features, num_train=num_train)
    classes = getattr(problem, "num_classes", 2)
    features = getattr(problem, "num_features", 2)
    return DatasetInfo("table", "classification", classes, None, features, num_train=num_train)
