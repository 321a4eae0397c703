"""What changed between two fingerprints, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from flat_sources import split_part

from trainkit.data.dataset import Part, describe_changes, fingerprint_dataset, hash_array

NAMES = ("cat", "dog")


def fingerprint(
    *, count: int = 20, shift: float = 0.0, flip: bool = False, width: int = 3, seed: int = 0, names: Any = NAMES
) -> dict[str, Any]:
    targets = np.arange(count) % 2
    part = Part(np.full((count, width), shift, dtype=np.float32), 1 - targets if flip else targets)
    splits = split_part(part, "all", task="classification", fractions={"test": 0.2}, seed=seed, class_names=names)
    return fingerprint_dataset("made up", {"all": part}, splits, class_names=names)


def test_equal_data_have_equal_fingerprints_and_nothing_to_say() -> None:
    assert fingerprint() == fingerprint()
    assert describe_changes(fingerprint(), fingerprint()) == []


def test_every_change_is_named() -> None:
    before = fingerprint()
    assert describe_changes(before, fingerprint(count=22)) == [
        "part 'all': 20 samples then, 22 now (cat 10 -> 11, dog 10 -> 11)"
    ]
    assert describe_changes(before, fingerprint(shift=1.0)) == ["part 'all': input values changed"]
    assert describe_changes(before, fingerprint(flip=True)) == ["part 'all': targets changed"]
    assert "the shape of the inputs" in describe_changes(before, fingerprint(width=4))[0]
    assert "other samples of the same data" in describe_changes(before, fingerprint(seed=1))[0]
    assert describe_changes(before, fingerprint(names=("cat", "wolf"))) == ["classes gone: dog; new classes: wolf"]
    assert describe_changes(before, fingerprint(names=("dog", "cat"))) == ["the classes are in another order"]
    composed, taken_apart = fingerprint(names=("caf\u00e9", "dog")), fingerprint(names=("cafe\u0301", "dog"))
    assert "another Unicode form" in describe_changes(composed, taken_apart)[0]
    assert describe_changes(before, before | {"source": "csv"}) == ["the source was made up, now it is csv"]


def test_parts_and_splits_that_come_and_go() -> None:
    before = fingerprint()
    without = before | {"parts": {"train": before["parts"]["all"]}}
    assert describe_changes(before, without) == [
        "the part 'all' is gone (20 samples)",
        "the part 'train' is new (20 samples)",
    ]
    fewer = before | {"splits": {"train": before["splits"]["train"]}}
    assert describe_changes(before, fewer) == ["the split 'test' is gone"]


def test_a_hash_sees_shape_and_type() -> None:
    zeros = np.zeros((2, 3), dtype=np.float32)
    assert len({hash_array(array) for array in (zeros, zeros.reshape(3, 2), zeros.astype(np.int32), zeros + 1)}) == 4
    assert hash_array(zeros.T) == hash_array(np.ascontiguousarray(zeros.T))
