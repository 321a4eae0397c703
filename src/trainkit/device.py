"""The device, the number format, the threads and the memory of a run: choices that carry their reason."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from trainkit.errors import Problem, ProblemsError


@dataclass(frozen=True)
class Choice:
    """A value that was chosen, and why: printed, and stored in the run."""

    value: str
    reason: str


def resolve_device(requested: str) -> Choice:
    """The device to work on: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ProblemsError: A device was asked for by name that is not there; the message lists what there is.
    """
    devices = available_devices()
    if requested == "auto":
        return _preferred(devices)
    wanted = "cuda:0" if requested == "cuda" else requested
    if wanted not in devices:
        message = f"there is no device {requested!r}; {_missing_reason(wanted)}this machine has {', '.join(devices)}"
        raise ProblemsError([Problem(f"{message}; take one of these, or auto", key="device")])
    return Choice(wanted, "as asked for")


def available_devices() -> tuple[str, ...]:
    """The devices that can be asked for, the best first."""
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


def _missing_reason(wanted: str) -> str:
    if not wanted.startswith("cuda") or torch.cuda.is_available():
        return ""
    built = torch.version.cuda is not None or torch.version.hip is not None
    return "PyTorch finds no CUDA driver or GPU here: " if built else "this PyTorch is built without CUDA: "


def free_device_bytes(device: torch.device) -> int:
    """Memory that can still be taken on the device."""
    if device.type == "cuda":
        # What PyTorch holds but does not use can be used again.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory())
    return free_host_bytes()


def free_host_bytes() -> int:
    """RAM that can be taken without swapping, within the limits of the container."""
    free = _meminfo_available()
    if free is None:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _cgroup_free()
    return free if limit is None else min(free, limit)


def _meminfo_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup_free() -> int | None:
    """Bytes left under a cgroup v2 limit; file pages that can be dropped do not count as used."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    droppable = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    return max(0, int(limit) - used + droppable)
