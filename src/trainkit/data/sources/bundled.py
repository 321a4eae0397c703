"""The small data sets that come with scikit-learn: digits, iris, wine, breast_cancer and diabetes. No download."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.data.cache import cached_arrays
from trainkit.data.dataset import Dataset, Part
from trainkit.data.fingerprints import fingerprint_dataset
from trainkit.data.splits import split_part

BundledName = Literal["digits", "iris", "wine", "breast_cancer", "diabetes"]

_LAYOUT = 1
"""Raised when ``_read_sklearn`` gives other arrays or names, so that old cache entries are not taken."""


def load_bundled(
    name: BundledName,
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
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
    part = Part(arrays["inputs"], arrays["targets"])
    task = info["task"]
    splits = split_part(
        part,
        "all",
        task=task,
        fractions={"test": test_fraction, "val": val_fraction},
        seed=seed,
        class_names=info["class_names"],
    )
    return Dataset(
        name=name,
        kind=info["kind"],
        task=task,
        parts={"all": part},
        splits=splits,
        class_names=tuple(info["class_names"]),
        feature_names=tuple(info["feature_names"]),
        target_names=tuple(info["target_names"]),
        fingerprint=fingerprint_dataset(name, {"all": part}, splits, class_names=info["class_names"]),
        channels=1 if info["kind"] == "image" else None,
    )


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
