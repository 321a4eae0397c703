"""The sets of scikit-learn (no import of it when they are cached), and data from formulas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flat_sources import load_bundled, make_synthetic
from sklearn import datasets

from trainkit.data.dataset import Dataset


@pytest.mark.parametrize(
    ("name", "shape", "samples", "classes"),
    [
        ("digits", (1, 8, 8), 1797, 10),
        ("iris", (4,), 150, 3),
        ("wine", (13,), 178, 3),
        ("breast_cancer", (30,), 569, 2),
        ("diabetes", (10,), 442, 0),
    ],
)
def test_shapes_names_and_sizes(name: str, shape: tuple[int, ...], samples: int, classes: int) -> None:
    data = load_bundled(name, val_fraction=0.1, test_fraction=0.2, seed=0)
    assert data.input_shape == shape
    assert data.num_classes == classes
    assert sum(len(split) for split in data.splits.values()) == samples
    assert data.task == ("classification" if classes else "regression")
    assert data.num_targets == (0 if classes else 1)
    assert len(data.feature_names) == (0 if name == "digits" else shape[0])
    assert data.parts["all"].targets.dtype == (np.int64 if classes else np.float32)
    original = getattr(datasets, f"load_{name}")()
    if name != "digits":
        assert np.array_equal(data.parts["all"].inputs, original.data.astype(np.float32))
        assert data.feature_names == tuple(original.feature_names)
    assert np.array_equal(data.parts["all"].targets.ravel(), original.target.astype(data.parts["all"].targets.dtype))


def test_digits_go_from_0_to_16_to_0_to_255_by_the_stated_rule() -> None:
    pixels = load_bundled("digits", val_fraction=0.1, test_fraction=0.2, seed=0).parts["all"].inputs
    counts = datasets.load_digits().images
    assert isinstance(pixels, np.ndarray)
    assert pixels.dtype == np.uint8
    table = {int(count): int(value) for count, value in zip(counts.ravel(), pixels.ravel(), strict=True)}
    assert table == {count: int(count * 255 / 16 + 0.5) for count in range(17)}
    assert (table[0], table[8], table[16]) == (0, 128, 255)


def test_iris_classes_have_their_names() -> None:
    data = load_bundled("iris", val_fraction=0.1, test_fraction=0.2, seed=0)
    assert data.class_names == ("setosa", "versicolor", "virginica")
    assert data.fingerprint["parts"]["all"]["samples_per_class"] == dict.fromkeys(data.class_names, 50)


def test_a_cached_set_is_the_same_and_needs_neither_scikit_learn_nor_torchvision(tmp_path: Path) -> None:
    first = load_bundled("digits", val_fraction=0.1, test_fraction=0.2, seed=0, cache_dir=tmp_path)
    code = (
        "import sys; from pathlib import Path; from trainkit.data.sources.builtin import load_bundled\n"
        "from trainkit.data.splits import HeldOut\n"
        "held = HeldOut({'test': 0.2, 'val': 0.1}, seed=0)\n"
        f"data = load_bundled('digits', held=held, cache_dir=Path({str(tmp_path)!r}))\n"
        "print(data.fingerprint['parts']['all']['inputs'], 'sklearn' in sys.modules, 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [first.fingerprint["parts"]["all"]["inputs"], "False", "False"]


def make(problem: Any, *, data_seed: int = 0, num_samples: int = 600, **knobs: Any) -> Dataset:
    return make_synthetic(
        problem, num_samples=num_samples, data_seed=data_seed, val_fraction=0.1, test_fraction=0.2, seed=0, **knobs
    )


def arrays(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    part = data.parts["all"]
    assert isinstance(part.inputs, np.ndarray)
    return part.inputs, part.targets


@pytest.mark.parametrize(
    ("problem", "knobs", "features", "classes"),
    [
        ("blobs", {"num_features": 4, "num_classes": 5, "spread": 0.5}, 4, 5),
        ("moons", {"noise": 0.0}, 2, 2),
        ("spirals", {"num_classes": 3, "noise": 0.0}, 2, 3),
        ("linear_regression", {"num_features": 7, "num_targets": 2, "noise": 0.1}, 7, 0),
        ("random_binary", {"num_features": 6}, 6, 2),
    ],
)
def test_shapes_and_determinism(problem: str, knobs: dict[str, Any], features: int, classes: int) -> None:
    data = make(problem, **knobs)
    inputs, targets = arrays(data)
    assert inputs.shape == (600, features)
    assert inputs.dtype == np.float32
    assert np.isfinite(inputs).all()
    assert data.num_classes == classes
    assert len(data.feature_names) == features
    assert targets.dtype == (np.int64 if classes else np.float32)
    again, others = make(problem, **knobs), make(problem, data_seed=1, **knobs)
    assert again.fingerprint == data.fingerprint
    assert others.fingerprint["parts"] != data.fingerprint["parts"]


def test_the_split_seed_leaves_the_samples_alone() -> None:
    first = make("moons")
    second = make_synthetic("moons", num_samples=600, data_seed=0, val_fraction=0.1, test_fraction=0.2, seed=9)
    assert first.fingerprint["parts"] == second.fingerprint["parts"]
    assert first.fingerprint["splits"] != second.fingerprint["splits"]


def test_linear_regression_is_linear() -> None:
    inputs, targets = arrays(make("linear_regression", num_features=5, num_targets=2, noise=0.0))
    with_bias = np.column_stack([inputs, np.ones(len(inputs))])
    _, residuals, rank, _ = np.linalg.lstsq(with_bias, targets, rcond=None)
    assert rank == 6
    assert residuals.max() < 1e-6


def test_moons_without_noise_lie_on_their_half_circles() -> None:
    inputs, labels = arrays(make("moons", noise=0.0))
    upper, lower = inputs[labels == 0], inputs[labels == 1]
    assert np.allclose(np.hypot(upper[:, 0], upper[:, 1]), 1, atol=1e-6)
    assert np.allclose(np.hypot(lower[:, 0] - 1, lower[:, 1] - 0.5), 1, atol=1e-6)
    assert upper[:, 1].min() >= -1e-6
    assert lower[:, 1].max() <= 0.5 + 1e-6


def test_spirals_differ_by_a_rotation_and_classes_are_balanced() -> None:
    inputs, labels = arrays(make("spirals", num_classes=3, noise=0.0))
    assert np.bincount(labels).tolist() == [200, 200, 200]
    radius = np.hypot(inputs[:, 0], inputs[:, 1])
    turned = np.arctan2(inputs[:, 1], inputs[:, 0]) - np.pi * radius - 2 * np.pi * labels / 3
    assert np.allclose(np.cos(turned), 1, atol=1e-3)


def test_blobs_have_the_given_spread() -> None:
    inputs, labels = arrays(make("blobs", num_samples=30_000, num_classes=2, spread=2.0))
    deviations = [inputs[labels == label].std(axis=0) for label in (0, 1)]
    assert np.allclose(deviations, 2.0, rtol=0.05)
