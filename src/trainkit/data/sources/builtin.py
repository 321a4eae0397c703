"""Data sets that need no files: the small ones of scikit-learn, and samples drawn from formulas."""

from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.data.cache import cached_arrays
from trainkit.data.dataset import Dataset, Part, fingerprint_dataset
from trainkit.data.splits import HeldOut, split_part
from trainkit.runtime import derive_seed

BundledName = Literal["digits", "iris", "wine", "breast_cancer", "diabetes"]
ProblemName = Literal["blobs", "moons", "spirals", "linear_regression", "random_binary"]
Samples = tuple[NDArray[np.float32], NDArray[Any]]

_LAYOUT = 1
"""Raise it when ``_read_sklearn`` gives other arrays or names, so that old cache entries are not used."""


def load_bundled(
    name: BundledName,
    *,
    held: HeldOut,
    cache_dir: Path | None = None,
    save: bool = True,
) -> Dataset:
    """A bundled set with one part, ``"all"``, split by fraction.

    ``digits`` becomes uint8 images (N, 1, 8, 8): its values are counts of set pixels, 0 to 16, and count ``c`` becomes
    ``(c * 255 + 8) // 16``, that is ``c * 255 / 16`` rounded half up in whole numbers. The others are float32 tables.

    With ``cache_dir`` the arrays are kept there (not with ``save=False``), and later calls do not import scikit-learn.

    Raises:
        ProblemsError: The fractions leave a split empty or a class without training samples.
    """
    description = {"kind": "bundled", "name": name, "scikit-learn": version("scikit-learn"), "layout": _LAYOUT}
    arrays, info = cached_arrays(cache_dir, name, description, lambda: _read_sklearn(name), save=save)
    return _split(
        Part(arrays["inputs"], arrays["targets"]),
        held,
        source=name,
        name=name,
        kind=info["kind"],
        task=info["task"],
        class_names=tuple(info["class_names"]),
        feature_names=tuple(info["feature_names"]),
        target_names=tuple(info["target_names"]),
        channels=1 if info["kind"] == "image" else None,
    )


def _split(part: Part, held: HeldOut, *, source: str, **about: Any) -> Dataset:
    """A data set of one part, ``"all"``, split by fraction; ``about`` is what else ``Dataset`` takes."""
    class_names = about["class_names"]
    splits = split_part(part, "all", task=about["task"], held=held, class_names=class_names)
    fingerprint = fingerprint_dataset(source, {"all": part}, splits, class_names=class_names)
    return Dataset(parts={"all": part}, splits=splits, fingerprint=fingerprint, **about)


def _read_sklearn(name: BundledName) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays and names of a set as scikit-learn has them, in our types."""
    from sklearn import datasets  # 1 s to import: only where it is needed

    bunch = getattr(datasets, f"load_{name}")()
    if name == "digits":
        counts = bunch.data.astype(np.int64).reshape(-1, 1, 8, 8)
        inputs: NDArray[Any] = ((counts * 255 + 8) // 16).astype(np.uint8)
    else:
        inputs = bunch.data.astype(np.float32)
    if name == "diabetes":
        targets: NDArray[Any] = bunch.target.astype(np.float32).reshape(-1, 1)
    else:
        targets = bunch.target.astype(np.int64)
    info = {
        "kind": "image" if name == "digits" else "table",
        "task": "regression" if name == "diabetes" else "classification",
        "class_names": [] if name == "diabetes" else [str(label) for label in bunch.target_names],
        "feature_names": [] if name == "digits" else [str(feature) for feature in bunch.feature_names],
        "target_names": ["disease_progression"] if name == "diabetes" else [],
    }
    return {"inputs": inputs, "targets": targets}, info


def make_synthetic(
    problem: ProblemName,
    *,
    num_samples: int,
    data_seed: int,
    held: HeldOut,
    **knobs: Any,
) -> Dataset:
    """A table of ``num_samples`` rows in one part, ``"all"``; ``knobs`` are arguments of the problem's function below.

    The samples depend on ``data_seed`` only (Philox, a counter-based generator), the splits on that of ``held``.

    Raises:
        ProblemsError: The fractions leave a split empty or a class without training samples.
    """
    rng = np.random.Generator(np.random.Philox(derive_seed(data_seed, f"synthetic.{problem}")))
    match problem:
        case "blobs":
            inputs, targets = _blobs(rng, num_samples, **knobs)
        case "moons":
            inputs, targets = _moons(rng, num_samples, **knobs)
        case "spirals":
            inputs, targets = _spirals(rng, num_samples, **knobs)
        case "linear_regression":
            inputs, targets = _linear_regression(rng, num_samples, **knobs)
        case "random_binary":
            inputs, targets = _random_binary(rng, num_samples, **knobs)
    regression = problem == "linear_regression"
    num_classes = 0 if regression else knobs.get("num_classes", 3 if problem == "blobs" else 2)
    return _split(
        Part(inputs, targets),
        held,
        source=f"synthetic {problem}",
        name=problem,
        kind="table",
        task="regression" if regression else "classification",
        class_names=tuple(str(label) for label in range(num_classes)),
        feature_names=tuple(f"x{column}" for column in range(inputs.shape[1])),
        target_names=tuple(f"y{column}" for column in range(targets.shape[1])) if regression else (),
    )


def _balanced_labels(num_samples: int, num_classes: int) -> NDArray[np.int64]:
    """0, 1, ..., K-1, 0, 1, ...: every class has the same number of samples, give or take one."""
    return np.arange(num_samples, dtype=np.int64) % num_classes


def _blobs(
    rng: np.random.Generator, num_samples: int, *, num_features: int = 2, num_classes: int = 3, spread: float = 1.0
) -> Samples:
    """Normal clusters with standard deviation ``spread`` around centers drawn uniformly from [-5, 5]."""
    centers = rng.uniform(-5.0, 5.0, (num_classes, num_features)).astype(np.float32)
    labels = _balanced_labels(num_samples, num_classes)
    noise = rng.standard_normal((num_samples, num_features), dtype=np.float32)
    return centers[labels] + np.float32(spread) * noise, labels


def _moons(rng: np.random.Generator, num_samples: int, *, noise: float = 0.1) -> Samples:
    """Half circles of radius 1: the upper around (0, 0), the lower around (1, 0.5)."""
    labels = _balanced_labels(num_samples, 2)
    angles = rng.uniform(0.0, math.pi, num_samples)
    upper = labels == 0
    points = np.stack(
        [np.where(upper, np.cos(angles), 1 - np.cos(angles)), np.where(upper, np.sin(angles), 0.5 - np.sin(angles))],
        axis=1,
    )
    return (points + noise * rng.standard_normal(points.shape)).astype(np.float32), labels


def _spirals(rng: np.random.Generator, num_samples: int, *, num_classes: int = 2, noise: float = 0.1) -> Samples:
    """Arms of 1.5 turns and radius 0 to 3, each turned against the next by 1/K of a circle."""
    labels = _balanced_labels(num_samples, num_classes)
    distance = np.sqrt(rng.uniform(0.0, 1.0, num_samples))  # the root spreads the samples evenly along the arm
    angles = 3 * math.pi * distance + 2 * math.pi * labels / num_classes
    points = 3 * distance[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return (points + noise * rng.standard_normal(points.shape)).astype(np.float32), labels


def _linear_regression(
    rng: np.random.Generator, num_samples: int, *, num_features: int = 10, num_targets: int = 1, noise: float = 0.1
) -> Samples:
    """``y = x W + b + noise`` with standard normal x, W and b."""
    weight = rng.standard_normal((num_features, num_targets), dtype=np.float32)
    bias = rng.standard_normal(num_targets, dtype=np.float32)
    inputs = rng.standard_normal((num_samples, num_features), dtype=np.float32)
    residuals = rng.standard_normal((num_samples, num_targets), dtype=np.float32)
    # einsum, not BLAS: the sum of a row must not depend on the machine's thread count.
    targets = np.einsum("nf,ft->nt", inputs, weight) + bias + np.float32(noise) * residuals
    return inputs, targets.astype(np.float32)


def _random_binary(rng: np.random.Generator, num_samples: int, *, num_features: int = 5) -> Samples:
    """Standard normal features, and labels 0 and 1 that have nothing to do with them."""
    inputs = rng.standard_normal((num_samples, num_features), dtype=np.float32)
    return inputs, rng.integers(0, 2, num_samples, dtype=np.int64)
