"""The sets that come with scikit-learn: shapes, names, values, and no import of it when they are cached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets

from trainkit.data.sources.bundled import load_bundled


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
    arguments = "val_fraction=0.1, test_fraction=0.2, seed=0"
    first = load_bundled("digits", val_fraction=0.1, test_fraction=0.2, seed=0, cache_dir=tmp_path)
    code = (
        "import sys; from pathlib import Path; from trainkit.data.sources.bundled import load_bundled\n"
        f"data = load_bundled('digits', {arguments}, cache_dir=Path({str(tmp_path)!r}))\n"
        "print(data.fingerprint['parts']['all']['inputs'], 'sklearn' in sys.modules, 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [first.fingerprint["parts"]["all"]["inputs"], "False", "False"]
