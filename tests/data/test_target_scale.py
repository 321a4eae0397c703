"""Targets in standard units and back: nothing of their digits is lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.data import target_scale
from trainkit.data.target_scale import in_own_units, is_standard, measure_targets, stored_scale, targets_of_model

FACTORS = st.floats(1e-6, 1e6)
SHIFTS = st.floats(-1e12, 1e12)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(target_scale, "_ROWS", 7)  # several blocks in small data


def standard(seed, size, columns=1):
    return np.random.default_rng(seed).standard_normal((size, columns))


def everything(targets):
    return np.arange(len(targets), dtype=np.int64)


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 40), columns=st.integers(1, 3))
def test_the_scale_is_that_of_the_training_rows(seed, size, columns):
    targets = 5 + 3 * standard(seed, size, columns)
    train = np.sort(np.random.default_rng(seed).permutation(size)[: size // 2 + 1])
    scale = np.array(measure_targets(targets, train))
    np.testing.assert_allclose(scale[:, 0], targets[train].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scale[:, 1], targets[train].std(axis=0), rtol=1e-12)


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(3, 40), a=FACTORS, b=SHIFTS)
def test_other_units_are_the_same_to_the_model(seed, size, a, b):
    """Up to the digits that float64 keeps of ``a * y + b``."""
    targets = standard(seed, size)
    others = a * targets + b
    rows = everything(targets)
    seen = targets_of_model(targets, measure_targets(targets, rows))
    lost = 4 * np.spacing(np.abs(others).max()) / (a * targets.std())
    seen_in_others = targets_of_model(others, measure_targets(others, rows))
    assert seen.dtype == seen_in_others.dtype == np.float32
    np.testing.assert_allclose(seen_in_others, seen, rtol=0, atol=1e-6 + 10 * lost)


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 40), a=FACTORS, b=SHIFTS)
def test_there_and_back_keeps_seven_digits_of_the_spread(seed, size, a, b):
    targets = a * standard(seed, size) + b
    scale = measure_targets(targets, everything(targets))
    back = in_own_units(targets_of_model(targets, scale), scale)
    assert back.dtype == np.float64
    np.testing.assert_allclose(back, targets, rtol=1e-15, atol=1e-6 * np.abs(targets - scale[0][0]).max())


def test_seconds_and_fractions_of_unix_times_stay_apart():
    targets = 1_700_000_000 + np.arange(100)[:, None] / 10
    scale = measure_targets(targets, everything(targets))
    assert len(np.unique(targets_of_model(targets, scale))) == 100
    assert len(np.unique(targets.astype(np.float32))) == 1, "float32 has steps of 128 there"
    np.testing.assert_allclose(in_own_units(targets_of_model(targets, scale), scale), targets, rtol=0, atol=1e-5)


@given(value=st.floats(-1e15, 1e15), size=st.integers(1, 20))
def test_a_constant_target_is_exactly_0_to_the_model(value, size):
    targets = np.full((size, 1), value)
    scale = measure_targets(targets, everything(targets))
    assert scale == ((value, 1.0),)
    assert not targets_of_model(targets, scale).any()


def test_integers_and_float32_are_measured_in_float64():
    targets = (2**24 + np.arange(10, dtype=np.float32) * 2)[:, None]
    [(mean, std)] = measure_targets(targets, everything(targets))
    assert (mean, std) == (2**24 + 9, np.std(np.arange(10) * 2))


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (((0.0, 1.0),), True),
        (((0.5, 1.0),), True),
        (((-0.6, 1.0),), False),
        (((0.0, 0.5),), True),
        (((0.0, 0.49),), False),
        (((0.0, 2.0),), True),
        (((0.0, 2.1),), False),
        (((0.0, 1.0), (150.0, 80.0)), False),
    ],
)
def test_what_counts_as_standard_already(scale, expected):
    assert is_standard(scale) is expected


def test_without_a_scale_targets_are_as_they_are():
    targets = standard(0, 5)
    assert targets_of_model(targets, None).tobytes() == targets.astype(np.float32).tobytes()
    outputs = targets.astype(np.float32)
    assert in_own_units(outputs, None) is outputs
    assert stored_scale({"kind": "table"}) is None, "checkpoints of earlier versions"
    assert stored_scale({"target_scale": None}) is None
    assert stored_scale({"target_scale": [[1, 2.5]]}) == ((1.0, 2.5),)
