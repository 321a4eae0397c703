"""Number formats: the rule of ``auto``, its words, and where the last layer computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from trainkit.errors import ProblemsError
from trainkit.runtime import Choice, forward, resolve_precision, use_tf32
from trainkit.runtime import precision as module

CPU = torch.device("cpu")


def pretend(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    """A CPU with these instructions."""
    monkeypatch.setattr(module, "_cpu_flags", lambda: frozenset(flags))


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


def test_an_exact_task_keeps_all_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "amx_bf16")
    choice = resolve_precision("auto", CPU, convolutional=True, exact="values would be rounded")
    assert choice == Choice("fp32", "auto: values would be rounded")
    assert resolve_precision("bf16", CPU, convolutional=True, exact="values would be rounded").value == "bf16"


def test_tf32_on_a_device_without_it_computes_in_fp32() -> None:
    choice = resolve_precision("tf32", CPU, convolutional=True)
    assert choice == Choice("tf32", "as asked for; this CPU has no TF32 and computes in fp32")


@pytest.mark.parametrize("precision", ["tf32", "fp32", "bf16"])
def test_tf32_is_on_only_where_it_was_chosen(precision: str) -> None:
    try:
        use_tf32(precision)
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    finally:
        use_tf32("fp32")


def test_outputs_are_float32_in_every_precision() -> None:
    for precision in ("fp32", "tf32", "bf16"):
        assert forward(nn.Linear(3, 2), torch.ones(1, 3), precision=precision).dtype == torch.float32
