"""Undocumented parts of PyTorch: each trial sees a change, and the plain way gives the same."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from trainkit.engine.muon import MuonAndAdamW
from trainkit.runtime import any_non_finite, copy_, leaves_out_updates, lerp_, take_step
from trainkit.runtime import internals as module

OPTIMIZERS = [optim.SGD, optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.RMSprop]
OPTIMIZERS += [optim.Adagrad, MuonAndAdamW]


@pytest.fixture(autouse=True)
def fresh_trials():
    for trial in (module._unscale_checks, module._bare_step):
        trial.cache_clear()
    yield
    for trial in (module._unscale_checks, module._bare_step):
        trial.cache_clear()


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.sampled_from([0.0, 3e38, float("inf"), float("nan")]))
def test_both_ways_find_the_same(sizes, value) -> None:
    tensors = [torch.zeros(size) for size in sizes]
    tensors[-1][-1] = value
    expected = float(not abs(value) < float("inf"))
    for found in (any_non_finite(tensors), module._plain_check(tensors)):
        assert found.dtype == torch.float32
        assert found.tolist() == [expected]


@pytest.mark.parametrize(
    "changed",
    [None, lambda tensors, found, scale: None, lambda tensors: None],
    ids=["gone", "blind", "other arguments"],
)
def test_without_the_kernel_of_gradscaler_nan_is_still_found(monkeypatch: pytest.MonkeyPatch, changed) -> None:
    name = "_amp_foreach_non_finite_check_and_unscale_"
    monkeypatch.delattr(torch, name) if changed is None else monkeypatch.setattr(torch, name, changed)
    assert any_non_finite([torch.tensor([1.0, float("nan")])]).item() == 1
    assert any_non_finite([torch.tensor([1.0])]).item() == 0


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_without_hooks_is_the_step(kind) -> None:
    steps = []
    for function in (take_step, kind.step):
        torch.manual_seed(0)
        model = nn.Linear(7, 3)
        optimizer = kind(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 7)).square().sum().backward()
            function(optimizer)
        steps.append(model.weight.detach())
    assert module._bare_step(kind) is not kind.step
    assert torch.equal(*steps)


@pytest.mark.parametrize("inner", ["in another wrapper", "idle"])
def test_a_step_of_another_make_is_called_whole(monkeypatch: pytest.MonkeyPatch, inner: str) -> None:
    whole = optim.SGD.step

    def wrapper(self, closure=None):
        return whole(self, closure)

    def scaled(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.25
        return whole(self, closure)

    changed = scaled if inner == "in another wrapper" else wrapper
    changed.__wrapped__ = whole if changed is scaled else lambda self, closure=None: None  # type: ignore[attr-defined]
    monkeypatch.setattr(optim.SGD, "step", changed)
    parameter = nn.Parameter(torch.ones(1))
    parameter.grad = torch.ones(1)
    take_step(optim.SGD([parameter], lr=0.5))
    assert parameter.item() == (0.75 if changed is scaled else 0.5)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW])
def test_fused_optimizers_leave_out_updates(kind) -> None:
    """On the CPU here, by the Python path that CUDA takes too."""
    assert leaves_out_updates(kind([nn.Parameter(torch.ones(3))], lr=0.1, fused=True))
    assert not leaves_out_updates(kind([nn.Parameter(torch.ones(3))], lr=0.1, fused=False))


def test_a_renamed_flag_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def halt(optimizer, halted):
        optimizer.renamed = halted

    monkeypatch.setattr(module, "halt_updates", halt)
    assert not leaves_out_updates(optim.AdamW([nn.Parameter(torch.ones(3))], lr=0.1, fused=True))


@pytest.mark.parametrize("name", ["_foreach_lerp_", "_foreach_copy_"])
def test_one_by_one_gives_the_same(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    start, ends = [torch.randn(5), torch.randn(2, 3)], [torch.randn(5), torch.randn(2, 3)]

    def result() -> list[torch.Tensor]:
        tensors = copy.deepcopy(start)
        lerp_(tensors, ends, 0.3) if "lerp" in name else copy_(tensors, ends)
        return tensors

    together = result()
    monkeypatch.delattr(torch, name)
    for mine, expected in zip(result(), together, strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-7)
