"""The device of a run: a choice that carries its reason."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from trainkit.errors import Problem, ProblemsError
from trainkit.runtime.memory import keep_freed_memory, lines_of
from trainkit.system import launched, owns_process
from trainkit.wording import counted


@dataclass(frozen=True)
class Choice:
    """A value that was chosen, and why: printed, and stored in the run."""

    value: str
    reason: str


def resolve_device(requested: str) -> Choice:
    """The device to work on: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ProblemsError: The named device does not exist; the message lists the devices of the machine. Or there are GPUs,
            but fewer than processes of the run on this machine.
    """
    devices = available_devices()
    gpus, here = sum(name.startswith("cuda") for name in devices), launched.ranks_here()
    if requested in ("auto", "cuda") and 0 < gpus < here:
        message = f"each process takes a GPU of its own, and {here} processes share {counted(gpus, 'GPU')} here"
        raise ProblemsError([Problem(f"{message}; start {gpus}, or set device to cpu", key="device")])
    if requested == "auto":
        return _preferred(devices)
    name = f"cuda:{launched.local_rank()}" if requested == "cuda" else requested
    if name not in devices:
        message = f"there is no device {requested!r}; {_missing_reason(name)}this machine has {', '.join(devices)}"
        raise ProblemsError([Problem(f"{message}; take one of these, or auto", key="device")])
    return Choice(name, "as asked for")


def claim(device: torch.device, *, deterministic: bool = True) -> None:
    """Make the device current.

    Args:
        deterministic: on CUDA, take kernels that give the same numbers every time where PyTorch has them; False lets
            cuDNN try which kernels are the fastest.
    """
    if device.type == "cpu" and owns_process():
        keep_freed_memory()
    if device.type == "cuda":
        # cuBLAS reads it once, when it starts: a workspace of fixed size, so that it always takes the same kernel.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.cuda.set_device(device)  # layers such as dropout draw from the current device's generator
        torch.backends.cudnn.deterministic = deterministic
        torch.backends.cudnn.benchmark = not deterministic
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        # Else every new tensor is filled with NaN first, against programs that read before they write.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def noting_nondeterminism(say: Callable[[str], None]) -> Iterator[None]:
    """One line for each operation that has no deterministic kernel, in place of PyTorch's warnings."""
    noted: set[str] = set()
    show = warnings.showwarning

    def note(message: Warning | str, *rest: Any, **more: Any) -> None:
        name, found, _ = str(message).partition(" does not have a deterministic implementation")
        if not found:
            show(message, *rest, **more)
        elif name not in noted:
            noted.add(name)
            say(
                f"note: {name} has no deterministic kernel on this device: the last digits may differ between two runs "
                "of the same config"
            )

    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=".* does not have a deterministic implementation")
        warnings.showwarning = note
        yield


def available_devices() -> tuple[str, ...]:
    """The devices of this machine, the best first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return (*cuda, *mps, "cpu")


def _preferred(devices: tuple[str, ...]) -> Choice:
    first = devices[0]
    if first.startswith("cuda"):
        first = f"cuda:{launched.local_rank()}"  # one for each process of a run
        return Choice(first, f"auto: {torch.cuda.get_device_name(first)}")
    if first == "mps":
        return Choice("mps", "auto: the GPU of this Mac, no CUDA")
    return Choice("cpu", "auto: neither CUDA nor MPS is available")


def processor_name() -> str:
    """The model of the CPU as the system calls it, such as ``AMD EPYC``."""
    names = (line.partition(":")[2].strip() for line in lines_of("/proc/cpuinfo") if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _missing_reason(name: str) -> str:
    if not name.startswith("cuda") or torch.cuda.is_available():
        return ""
    built = torch.version.cuda is not None or torch.version.hip is not None
    return "PyTorch finds no CUDA driver or GPU here: " if built else "this PyTorch is built without CUDA: "
