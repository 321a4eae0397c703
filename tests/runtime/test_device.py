"""Choices of device, number format and threads: the rule, and the words that go with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from trainkit.errors import ProblemsError
from trainkit.runtime import device as module
from trainkit.runtime.device import (
    Choice,
    autocast,
    available_devices,
    free_device_bytes,
    free_host_bytes,
    resolve_device,
    resolve_precision,
    set_num_threads,
)

CPU = torch.device("cpu")
has_cuda = torch.cuda.is_available()
has_mps = torch.backends.mps.is_available()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def pretend(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    """A CPU with these instructions."""
    monkeypatch.setattr(module, "_cpu_flags", lambda: frozenset(flags))


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


@pytest.mark.gpu
def test_cuda_is_found_by_name_and_number() -> None:
    assert resolve_device("auto").value == resolve_device("cuda").value == resolve_device("cuda:0").value == "cuda:0"
    with pytest.raises(ProblemsError, match="there is no device 'cuda:99'; this machine has cuda:0"):
        resolve_device("cuda:99")


@pytest.mark.parametrize("flag", ["amx_bf16", "avx512_bf16"])
def test_convolutions_run_in_bf16_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    pretend(monkeypatch, "avx512f", flag)
    choice = resolve_precision("auto", CPU, convolutional=True)
    assert choice == Choice("bf16", f"auto: convolutions, and this CPU has {flag}")


def test_convolutions_run_in_fp32_on_other_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "avx512f", "avx2")
    choice = resolve_precision("auto", CPU, convolutional=True)
    assert choice == Choice("fp32", "auto: this CPU has no bf16 instructions")


def test_models_without_convolutions_run_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "amx_bf16")
    choice = resolve_precision("auto", CPU, convolutional=False)
    assert choice == Choice("fp32", "auto: without convolutions, casting to bf16 costs more than it saves")


def test_what_was_asked_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "avx2")
    assert resolve_precision("fp32", CPU, convolutional=True) == Choice("fp32", "as asked for")
    slow = resolve_precision("bf16", CPU, convolutional=True)
    assert slow == Choice("bf16", "as asked for; slow, since this CPU has no bf16 instructions")
    pretend(monkeypatch, "avx512_bf16")
    assert resolve_precision("bf16", CPU, convolutional=False) == Choice("bf16", "as asked for")


def test_fp16_on_the_cpu_is_refused_with_the_reason() -> None:
    with pytest.raises(ProblemsError) as caught:
        resolve_precision("fp16", CPU, convolutional=True)
    assert str(caught.value) == (
        "training.precision: fp16 needs a CUDA device: its gradients underflow without loss scaling, got device cpu; "
        "use bf16, fp32 or auto"
    )


@pytest.mark.gpu
def test_precision_on_cuda_follows_the_hardware() -> None:
    cuda = torch.device("cuda:0")
    native = torch.cuda.get_device_capability(cuda) >= (8, 0)
    assert resolve_precision("auto", cuda, convolutional=True).value == ("bf16" if native else "fp32")
    assert resolve_precision("fp16", cuda, convolutional=True).value == "fp16"


def test_the_flags_of_this_cpu_are_read() -> None:
    if Path("/proc/cpuinfo").exists() and "flags" in Path("/proc/cpuinfo").read_text():
        assert module._cpu_flags()
    else:
        assert module._cpu_flags() == frozenset()


def test_autocast_sets_the_number_format() -> None:
    layer, inputs = torch.nn.Linear(3, 2), torch.ones(1, 3)
    assert isinstance(autocast(CPU, "fp32"), nullcontext)
    with autocast(CPU, "fp32"):
        assert layer(inputs).dtype == torch.float32
    with autocast(CPU, "bf16"):
        assert layer(inputs).dtype == torch.bfloat16


@pytest.mark.usefixtures("threads")
def test_threads_as_asked_for() -> None:
    assert set_num_threads(1) == Choice("1", "as asked for")
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("threads")
def test_threads_stay_within_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    monkeypatch.setattr(module, "_cgroup_cpus", lambda: None)
    assert set_num_threads("auto") == Choice("3", "auto: PyTorch's choice")
    monkeypatch.setattr(module, "_cgroup_cpus", lambda: 2)
    assert set_num_threads("auto") == Choice("2", "auto: this container may use 2 CPUs; PyTorch's choice was 3")
    assert torch.get_num_threads() == 2


def test_limits_of_a_container_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    assert module._cgroup_cpus() is None
    assert module._cgroup_free_bytes() is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert module._cgroup_cpus() == 2
    assert module._cgroup_free_bytes() == 450
    assert free_host_bytes() == 450
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert module._cgroup_cpus() is None
    assert module._cgroup_free_bytes() is None


def test_free_memory_is_counted_in_bytes() -> None:
    assert 1 << 20 < free_host_bytes() < 1 << 50
    assert free_device_bytes(CPU) > 1 << 20
