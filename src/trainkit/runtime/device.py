"""The device, the number format, the threads and the memory of a run: choices that carry their reason."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainkit.errors import Problem, ProblemsError

_CGROUP = Path("/sys/fs/cgroup")
"""Limits of the container, as version 2 of control groups shows them inside it."""


@dataclass(frozen=True)
class Choice:
    """A value that was chosen, and why: printed, and stored in the run."""

    value: str
    reason: str


def resolve_device(requested: str) -> Choice:
    """The device to work on: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ProblemsError: The named device does not exist; the message lists the devices of the machine.
    """
    devices = available_devices()
    if requested == "auto":
        return _preferred(devices)
    name = "cuda:0" if requested == "cuda" else requested
    if name not in devices:
        message = f"there is no device {requested!r}; {_missing_reason(name)}this machine has {', '.join(devices)}"
        raise ProblemsError([Problem(f"{message}; take one of these, or auto", key="device")])
    return Choice(name, "as asked for")


def claim(device: torch.device) -> None:
    """Make the device current, with kernels that give the same numbers every time."""
    if device.type == "cpu":
        _keep_freed_memory()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # layers such as dropout draw from the current device's generator
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def _keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next step, which needs the same again.

    By default it returns large blocks to the system, which clears their pages before they are used again: 3.5 million
    page faults in an epoch of the MNIST CNN, which took 15 to 17 s with them and 12 s without (glibc 2.36, two cores).
    The process stays at its peak, which it would reach again anyway. Without glibc nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold, mebibyte = -1, -3, 1 << 20
        mallopt(trim_threshold, 1024 * mebibyte)
        if not mallopt(mmap_threshold, 1024 * mebibyte):
            mallopt(mmap_threshold, 32 * mebibyte)  # the most that glibc before 2.35 takes


def available_devices() -> tuple[str, ...]:
    """The devices of this machine, the best first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return (*cuda, *mps, "cpu")


def _preferred(devices: tuple[str, ...]) -> Choice:
    first = devices[0]
    if first.startswith("cuda"):
        return Choice(first, f"auto: {torch.cuda.get_device_name(first)}")
    if first == "mps":
        return Choice("mps", "auto: the GPU of this Mac, no CUDA")
    return Choice("cpu", "auto: neither CUDA nor MPS is available")


def _missing_reason(name: str) -> str:
    if not name.startswith("cuda") or torch.cuda.is_available():
        return ""
    built = torch.version.cuda is not None or torch.version.hip is not None
    return "PyTorch finds no CUDA driver or GPU here: " if built else "this PyTorch is built without CUDA: "


def resolve_precision(requested: str, device: torch.device, *, convolutional: bool) -> Choice:
    """The number format of the forward pass: ``fp32``, or ``bf16`` or ``fp16`` by autocast.

    ``auto`` looks at the kind of model and at the hardware only, so the same machine always gets the same answer.

    Raises:
        ProblemsError: fp16 on a device where gradients cannot be scaled.
    """
    if requested == "fp16" and device.type != "cuda":
        message = f"fp16 needs a CUDA device: its gradients underflow without loss scaling, got device {device}"
        raise ProblemsError([Problem(f"{message}; use bf16, fp32 or auto", key="training.precision")])
    native = _native_bf16(device)
    if requested == "bf16" and native is None:
        return Choice("bf16", f"as asked for; slow, since {_hardware(device)} has no bf16 instructions")
    if requested != "auto":
        return Choice(requested, "as asked for")
    if not convolutional:
        return Choice("fp32", "auto: without convolutions, casting to bf16 costs more than it saves")
    if native is None:
        return Choice("fp32", f"auto: {_hardware(device)} has no bf16 instructions")
    return Choice("bf16", f"auto: convolutions, and {_hardware(device)} has {native}")


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


def _cpu_flags() -> frozenset[str]:
    return frozenset(next((line.split()[2:] for line in _lines("/proc/cpuinfo") if line.startswith("flags")), ()))


def _lines(path: str) -> list[str]:
    """The lines of a file of the Linux kernel; [] elsewhere."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _hardware(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"this {device.type.upper()}"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context of a forward pass in this number format; it does nothing for fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


def set_num_threads(requested: int | str) -> Choice:
    """Set how many CPU threads an operation uses. ``auto`` is PyTorch's choice, within the limit of a container."""
    if requested != "auto":
        torch.set_num_threads(int(requested))
        return Choice(str(requested), "as asked for")
    threads, quota = torch.get_num_threads(), _cgroup_cpus()
    if quota is not None and quota < threads:
        torch.set_num_threads(quota)
        return Choice(str(quota), f"auto: this container may use {quota} CPUs; PyTorch's choice was {threads}")
    return Choice(str(threads), "auto: PyTorch's choice")


def _cgroup_cpus() -> int | None:
    """CPUs that a cgroup v2 quota allows, rounded up; None without a quota."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, -(-int(quota) // int(period)))


def free_device_bytes(device: torch.device) -> int:
    """Free memory of the device."""
    if device.type == "cuda":
        # Memory that PyTorch has reserved but does not use is free for tensors.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory())
    return free_host_bytes()


def free_host_bytes() -> int:
    """RAM that can be taken without swapping, within the limits of the container."""
    available = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable:")]
    free = available[0] if available else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _cgroup_free_bytes()
    return free if limit is None else min(free, limit)


def _cgroup_free_bytes() -> int | None:
    """Bytes left under a cgroup v2 limit; file pages that can be dropped do not count as used."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    droppable = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    return max(0, int(limit) - used + droppable)
