"""Choices of device and number format: the rule, and the words that go with it."""

from __future__ import annotations

import warnings

import pytest
import torch

from trainkit.errors import ProblemsError
from trainkit.runtime.device import (
    Choice,
    available_devices,
    noting_nondeterminism,
    resolve_device,
)

CPU = torch.device("cpu")
has_cuda = torch.cuda.is_available()
has_mps = torch.backends.mps.is_available()


def test_auto_takes_the_first_device_there_is() -> None:
    assert available_devices()[-1] == "cpu"
    choice = resolve_device("auto")
    assert choice.value == available_devices()[0]
    if not has_cuda and not has_mps:
        assert choice == Choice("cpu", "auto: neither CUDA nor MPS is available")


def test_the_cpu_can_always_be_asked_for() -> None:
    assert resolve_device("cpu") == Choice("cpu", "as asked for")


@pytest.mark.skipif(has_cuda, reason="there is a CUDA device")
@pytest.mark.parametrize("asked", ["cuda", "cuda:7"])
def test_a_missing_gpu_says_what_there_is(asked: str) -> None:
    with pytest.raises(ProblemsError) as caught:
        resolve_device(asked)
    assert str(caught.value).startswith(f"device: there is no device '{asked}'; ")
    assert str(caught.value).endswith("this machine has cpu; take one of these, or auto")
    assert "CUDA" in str(caught.value)


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_more_processes_than_gpus_are_refused_by_all_of_them(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setattr("trainkit.runtime.device.available_devices", lambda: ("cuda:0", "cuda:1", "cpu"))
    for name, value in {"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3", "TORCHELASTIC_RUN_ID": "test"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ProblemsError, match="device: each process takes a GPU of its own, and 3 processes share 2 GPU"):
        resolve_device(asked)
    assert resolve_device("cpu").value == "cpu"


@pytest.mark.gpu
def test_cuda_is_found_by_name_and_number() -> None:
    assert resolve_device("auto").value == resolve_device("cuda").value == resolve_device("cuda:0").value == "cuda:0"
    with pytest.raises(ProblemsError, match="there is no device 'cuda:99'; this machine has cuda:0"):
        resolve_device("cuda:99")


def test_operations_without_a_deterministic_kernel_are_named_once() -> None:
    lines: list[str] = []
    with warnings.catch_warnings(), noting_nondeterminism(lines.append):
        for name in ("adaptive_avg_pool2d_backward_cuda", "put_", "adaptive_avg_pool2d_backward_cuda"):
            warnings.warn(f"{name} does not have a deterministic implementation, but you set ...", stacklevel=1)
    assert [line.split()[1] for line in lines] == ["adaptive_avg_pool2d_backward_cuda", "put_"]


def test_other_warnings_pass() -> None:
    with pytest.warns(UserWarning, match="something else"), noting_nondeterminism(print):
        warnings.warn("something else", stacklevel=1)
