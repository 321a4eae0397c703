"""Filling and scaling of columns: against scikit-learn and the papers' formulas, in training and in programs."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.preprocessing import QuantileTransformer

from trainkit.data.transforms import columns as module
from trainkit.data.transforms.columns import (
    FillMissing,
    Quantile,
    RobustScale,
    Standardize,
    column_module,
    from_json,
    medians,
    rank_quantiles,
    robust_statistics,
    to_json,
)
from trainkit.data.transforms.normal_scores import NormalScores

Array = NDArray[np.float32]


def all_of(table: Array) -> NDArray[np.int64]:
    return np.arange(len(table))


def apply(transform: module.TableTransform, table: Array) -> Array:
    result: Array = column_module(transform)(torch.from_numpy(table)).numpy()
    return result


def test_missing_numbers_become_the_median_with_a_flag_where_the_training_knew_gaps() -> None:
    nan = np.nan
    train = np.array([[1, 7, 2, 3], [nan, 7, 4, 3], [5, nan, 9, 1], [6, 8, 9, 0]], np.float32)
    fill = FillMissing(medians(train, all_of(train), 3), flagged=(0, 1))
    assert fill.median == (5, 7, 6.5)
    rows = np.array([[nan, 1, nan, 2], [4, nan, 5, 9]], np.float32)
    expected = np.array([[5, 1, 6.5, 1, 0, 2], [4, 7, 5, 0, 1, 9]], np.float32)
    np.testing.assert_array_equal(apply(fill, rows), expected)
    empty = np.full((3, 1), nan, np.float32)
    assert medians(empty, all_of(empty), 1) == (0,)


def test_robust_scale_is_the_formula_of_the_paper() -> None:
    table = np.random.default_rng(0).exponential(size=(301, 3)).astype(np.float32) * np.float32([1, 1e-6, 1e6])
    median, scale = robust_statistics(table, all_of(table), 3)
    exact = table.astype(np.float64)
    quartiles = np.quantile(exact, [0.25, 0.5, 0.75], axis=0)
    scaled = (exact - quartiles[1]) / (quartiles[2] - quartiles[0])
    np.testing.assert_allclose(
        apply(RobustScale(median, scale), table), scaled / np.sqrt(1 + (scaled / 3) ** 2), atol=1e-6
    )


def test_robust_scale_of_columns_without_a_quartile_distance_and_of_outliers() -> None:
    table = np.zeros((100, 3), np.float32)
    table[:5, 0] = [-1, 3, 0, 2, 1]  # 95 zeros: the range is 4
    table[:, 1] = 7
    table[:, 2] = np.arange(100)
    transform = RobustScale(*robust_statistics(table, all_of(table), 3))
    assert transform.scale[:2] == (2.0, 0.0)
    far = np.array([[2, 7, 1e30], [2, -5, -np.inf]], np.float32)
    one = 1 / np.sqrt(1 + 1 / 9)
    np.testing.assert_allclose(apply(transform, far), [[one, 0, 3], [one, 0, -3]], atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-7, 1e7])
@pytest.mark.parametrize("num_rows", [2, 7, 300, 5000])
def test_quantile_is_scikit_learns(num_rows: int, scale: float) -> None:
    rng = np.random.default_rng(num_rows)
    table = np.stack([rng.normal(size=num_rows), rng.exponential(size=num_rows) ** 2], 1)
    table = (table * scale).astype(np.float32)
    theirs = QuantileTransformer(n_quantiles=min(1000, num_rows), output_distribution="normal", subsample=None)
    # It takes values closer than 1e-7 to the smallest for the smallest, whatever their unit is.
    theirs.fit(table.astype(np.float64) / scale * 1e6)
    ours = Quantile(rank_quantiles(table, all_of(table), 2))
    rows = np.concatenate([table[:400], (rng.normal(size=(400, 2)) * 3 * scale).astype(np.float32)])
    expected = theirs.transform(rows.astype(np.float64) / scale * 1e6)
    np.testing.assert_allclose(apply(ours, rows), expected, atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=60))
def test_equal_values_get_the_score_of_their_middle_rank(values: list[int]) -> None:
    table = np.array(values, np.float32)[:, None]
    found = apply(Quantile(rank_quantiles(table, all_of(table), 1)), table)[:, 0]
    ordered = np.sort(table[:, 0])
    first, last = (np.searchsorted(ordered, table[:, 0], side=side) for side in ("left", "right"))
    middle = (first + last - 1) / 2 / (len(values) - 1)
    middle[table[:, 0] == ordered[0]], middle[table[:, 0] == ordered[-1]] = 0, 1
    expected = np.zeros(len(values)) if ordered[0] == ordered[-1] else stats.norm.ppf(middle.clip(1e-7, 1 - 1e-7))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_normal_scores_are_scipys() -> None:
    tail = np.logspace(-11, -1, 500)
    probabilities = np.concatenate([tail, np.linspace(0.01, 0.99, 501), 1 - tail])
    found = NormalScores()(torch.from_numpy(probabilities)).numpy()
    np.testing.assert_allclose(found, stats.norm.ppf(probabilities), atol=1e-12)


@pytest.mark.parametrize("name", ["standardize", "robust_scale", "quantile"])
def test_a_column_that_never_varied_has_no_influence(name: str) -> None:
    table = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    table[:, 1] = 0.1
    table[3, 1] = np.nan
    transform = scaling_of(name, table, 2)
    later = np.array([[0, 0.1], [0, 5], [0, -1e30], [0, np.inf]], np.float32)
    np.testing.assert_array_equal(apply(transform, later)[:, 1], np.zeros(4))


def scaling_of(name: str, table: Array, numeric: int) -> module.TableTransform:
    from trainkit.data.transforms.normalize import column_statistics

    rows = all_of(table)
    match name:
        case "standardize":
            return Standardize(*column_statistics(table, rows, numeric))
        case "robust_scale":
            return RobustScale(*robust_statistics(table, rows, numeric))
        case _:
            return Quantile(rank_quantiles(table, rows, numeric))


@pytest.mark.parametrize("name", ["standardize", "robust_scale", "quantile"])
def test_statistics_leave_out_missing_values_and_codes_pass(name: str) -> None:
    rng = np.random.default_rng(0)
    full = rng.normal(size=(80, 3)).astype(np.float32)
    full[:, 2] = rng.integers(0, 9, 80)
    holes = np.concatenate([full, np.full((40, 3), np.nan, np.float32)])
    if name != "quantile":  # it takes as many quantiles as there are rows
        assert scaling_of(name, holes, 2) == scaling_of(name, full, 2)
    np.testing.assert_allclose(
        apply(scaling_of(name, holes, 2), full), apply(scaling_of(name, full, 2), full), atol=0.5
    )
    transform = scaling_of(name, full, 2)
    np.testing.assert_array_equal(apply(transform, full)[:, 2], full[:, 2])
    assert np.isnan(apply(scaling_of("robust_scale", full, 2), holes)[80:, :2]).all()


@pytest.mark.parametrize("name", ["standardize", "robust_scale", "quantile"])
def test_many_rows_and_blocks_give_the_same_statistics(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    table[::7, 1] = np.nan
    before = scaling_of(name, table, 4)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 8 * 500)
    assert scaling_of(name, table, 4) == before
    monkeypatch.setattr(module, "_MOST_ROWS", 250)
    monkeypatch.setattr(module, "_MOST_QUANTILES", 50)
    before = scaling_of(name, table, 4)
    monkeypatch.setattr(module, "_MOST_ROWS", 1000)
    for some, exact in zip(table_of(scaling_of(name, table, 4)), table_of(before), strict=True):
        np.testing.assert_allclose(some, exact, atol=0.6)


def table_of(transform: module.TableTransform) -> list[NDArray[np.float64]]:
    return [np.asarray(values) for values in vars(transform).values()]


def test_what_a_checkpoint_keeps_makes_the_same_transforms() -> None:
    table = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    fill = FillMissing(medians(table, all_of(table), 2), (1,))
    for name in ("standardize", "robust_scale", "quantile"):
        transforms = [fill, scaling_of(name, table, 2)]
        assert from_json(json.loads(json.dumps(to_json(transforms)))) == transforms
    assert to_json([]) == {"standardize": None}
    assert from_json({"standardize": None}) == []


@pytest.mark.parametrize("name", ["standardize", "robust_scale", "quantile"])
def test_a_script_computes_the_same_bits(name: str) -> None:
    table = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    table[::5, 0] = np.nan
    program = torch.nn.Sequential(
        column_module(FillMissing(medians(table, all_of(table), 2), (0,))), column_module(scaling_of(name, table, 2))
    )
    rows = torch.from_numpy(table)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(program), buffer)
    buffer.seek(0)
    assert torch.equal(torch.jit.load(buffer)(rows), program(rows))
    exported = torch.export.export(program, (rows,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    assert torch.equal(exported.module()(rows[:7]), program(rows[:7]))
