"""Normalization: the stated operations bit for bit, and statistics equal to NumPy's in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from trainkit.data.transforms import normalize as module
from trainkit.data.transforms.normalize import channel_statistics, column_statistics, normalize, scaling, unit_floats


def test_bytes_become_floats_between_0_and_1() -> None:
    every_byte = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(unit_floats(every_byte), every_byte.float() / 255)
    floats = torch.rand(5)
    assert unit_floats(floats) is floats


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("block_bytes", [1, 7 * 3 * 16 * 17 * 4, 1 << 40])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalize_is_the_stated_operations(
    dtype: torch.dtype, layout: torch.memory_format, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    rows = torch.randint(0, 256, (20, 3, 16, 17), dtype=torch.uint8)  # every byte in every channel
    given = rows if dtype == torch.uint8 else rows.to(torch.float32).div_(255)
    before = given.clone()
    mean, std = (0.1307, 0.5, 0.9), (0.3081, 0.25, 1.7)
    shifts, scales = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    expected = rows.to(torch.float32).div_(255).sub_(shifts).div_(scales)
    given = given.contiguous(memory_format=layout)
    result = normalize(given, scaling(mean, std, (3, 16, 17)))
    assert torch.equal(result, expected)
    assert result.is_contiguous(memory_format=layout)
    assert torch.equal(given, before)


def test_channel_statistics_are_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS_BYTES", 1000)  # many blocks
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (90, 3, 5, 7), dtype=np.uint8)
    images[:, 1] //= 9
    chosen = np.sort(rng.choice(90, 50, replace=False))
    mean, std = channel_statistics(images, chosen)
    unit = images[chosen].astype(np.float64) / 255
    np.testing.assert_allclose(mean, unit.mean((0, 2, 3)), rtol=1e-14)
    np.testing.assert_allclose(std, unit.std((0, 2, 3)), rtol=1e-13)


def test_a_constant_channel_is_divided_by_one() -> None:
    images = np.full((4, 1, 3, 3), 51, dtype=np.uint8)
    assert channel_statistics(images, np.arange(4)) == ((0.2,), (1.0,))


def test_column_statistics_are_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS_BYTES", 100)
    rng = np.random.default_rng(0)
    table = (rng.normal(size=(200, 4)) * [1, 1e-4, 1e4, 3] + [0, 5, -1e5, 1]).astype(np.float32)
    chosen = np.sort(rng.choice(200, 120, replace=False))
    mean, std = column_statistics(table, chosen, 4)
    scaler = StandardScaler().fit(table[chosen].astype(np.float64))
    np.testing.assert_allclose(mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(std, scaler.scale_, rtol=1e-12)


def test_column_statistics_leave_out_what_is_missing_and_what_is_no_number() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(200, 4)).astype(np.float32)
    table[::3, 1] = np.nan
    table[:, 2] = np.nan
    mean, std = column_statistics(table, np.arange(200), 3)  # the last column holds codes
    np.testing.assert_allclose(mean, [table[:, 0].mean(), np.nanmean(table[:, 1].astype(np.float64)), 0], rtol=1e-6)
    np.testing.assert_allclose(std, [table[:, 0].std(), np.nanstd(table[:, 1].astype(np.float64)), 0], rtol=1e-6)


def test_a_constant_column_has_its_value_and_no_deviation() -> None:
    table = np.full((1001, 2), 0.1, dtype=np.float32)
    table[:, 1] = np.arange(1001)
    mean, std = column_statistics(table, np.arange(1001), 2)
    assert mean[0] == np.float32(0.1)
    assert std[0] == 0.0
