"""The number format of the forward pass, and its matrix products on CUDA."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.errors import Problem, ProblemsError
from trainkit.runtime.device import Choice
from trainkit.runtime.memory import lines_of

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


def resolve_precision(requested: str, device: torch.device, *, convolutional: bool, exact: str | None = None) -> Choice:
    """The number format of the forward pass: ``fp32``, ``tf32``, or ``bf16`` or ``fp16`` by autocast.

    ``auto`` looks at the kind of model, what is learned and the hardware only, so the same machine always gets the same
    answer.

    Args:
        exact: why the outputs or the loss need all digits of fp32; None where they don't.

    Raises:
        ProblemsError: fp16 on a device where gradients cannot be scaled.
    """
    if requested == "fp16" and device.type != "cuda":
        message = f"fp16 needs a CUDA device: its gradients underflow without loss scaling, got device {device}"
        raise ProblemsError([Problem(f"{message}; use bf16, fp32 or auto", key="training.precision")])
    native = _native_bf16(device)
    if requested == "bf16" and native is None:
        return Choice("bf16", f"as asked for; slow, since {_hardware(device)} has no bf16 instructions")
    if requested == "tf32" and not _has_tf32(device):
        return Choice("tf32", f"as asked for; {_hardware(device)} has no TF32 and computes in fp32")
    if requested != "auto":
        return Choice(requested, "as asked for")
    if exact is not None:
        return Choice("fp32", f"auto: {exact}")
    if not convolutional and _has_tf32(device):
        return Choice("tf32", f"auto: a classifier without convolutions, and {_hardware(device)} has TF32 tensor cores")
    if not convolutional:
        return Choice("fp32", "auto: without convolutions, casting to bf16 costs more than it saves")
    if native is None:
        return Choice("fp32", f"auto: {_hardware(device)} has no bf16 instructions")
    return Choice("bf16", f"auto: convolutions, and {_hardware(device)} has {native}")


def use_tf32(precision: str) -> None:
    """Round the operands of matrix products and convolutions on CUDA to 10 bits where ``precision`` is tf32, else not.

    PyTorch's own defaults round those of convolutions and not those of matrix products.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def forward(model: nn.Module, inputs: Tensor, *, precision: str) -> Tensor:
    """The outputs of a model, float32, computed in a number format."""
    outputs: Tensor
    if precision in ("fp32", "tf32"):  # without a context, which takes 3 us
        outputs = model(inputs)
        return outputs
    with autocast(inputs.device, precision):
        outputs = model(inputs)
    return outputs.float()


def _native_bf16(device: torch.device) -> str | None:
    """The instructions that make bf16 faster than fp32 on this device; None where there are none.

    Measured on two cores of an AMD EPYC with avx512_bf16 and no AMX, torch 2.15, channels_last, batch 64: a training
    step of two 5 x 5 convolutions (16, 32) on MNIST takes 6.5 ms in bf16 and 9.9 ms in fp32; of three 3 x 3
    convolutions (64, 128, 256) on CIFAR 46 and 97 ms. An MLP (784-128-64-10) takes 0.54 and 0.47 ms.
    """
    if device.type == "cuda":
        return "bf16 tensor cores" if torch.cuda.get_device_capability(device) >= (8, 0) else None
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    flags = _cpu_flags()
    return next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags), None)


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def _cpu_flags() -> frozenset[str]:
    return frozenset(next((line.split()[2:] for line in lines_of("/proc/cpuinfo") if line.startswith("flags")), ()))


def _hardware(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"this {device.type.upper()}"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context of a forward pass in this number format; it does nothing for fp32 and tf32."""
    if precision in ("fp32", "tf32"):
        return nullcontext()
    return torch.autocast(device.type, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
