"""Free memory of the machine and of its devices."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch

from trainkit.system import cgroups

_NO_HOST_MEMORY = ("DefaultCPUAllocator", "Cannot allocate memory")
_NO_DEVICE_MEMORY = ("out of memory", "STATUS_ALLOC_FAILED")
"""Words of errors that are no ``torch.OutOfMemoryError``: of MPS, of cuBLAS and cuDNN, of the driver."""


def memory_that_ran_out(error: Exception) -> Literal["host", "device"] | None:
    """Whose memory ran out; None for any other error."""
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text for words in _NO_HOST_MEMORY):
        return "host"
    found = isinstance(error, torch.OutOfMemoryError) or any(words in text for words in _NO_DEVICE_MEMORY)
    return "device" if found else None


def keep_freed_memory() -> None:
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
    """RAM that can be taken without swapping, within the limits of the container or job."""
    available = [int(line.split()[1]) * 1024 for line in lines_of("/proc/meminfo") if line.startswith("MemAvailable:")]
    free = available[0] if available else _free_without_proc()
    return min([free, *_free_below_limits()])


def _free_without_proc() -> int:
    """macOS, which does not tell what is free: all of it. Windows."""
    return host_bytes() if hasattr(os, "sysconf") else int(_windows_memory().available)


def host_bytes() -> int:
    """RAM of the machine, or the limit of the container or job where that is lower."""
    if hasattr(os, "sysconf"):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        total = int(_windows_memory().total)
    return min([total, *(limit for _, limit in _limits())])


def _limits() -> Iterator[tuple[Path, int]]:
    """The cgroups around this process that have a limit of memory, each with it."""
    for group in cgroups():
        with suppress(OSError, ValueError):  # "max" is no number
            yield group, int((group / "memory.max").read_text())


def _free_below_limits() -> Iterator[int]:
    """Bytes left under each limit; file pages that can be dropped do not count as used."""
    for group, limit in _limits():
        with suppress(OSError, ValueError):
            used = int((group / "memory.current").read_text())
            lines = (group / "memory.stat").read_text().splitlines()
            droppable = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
            yield max(0, limit - used + droppable)


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API, up to the available physical memory."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 5),
    )


def _windows_memory() -> _MemoryStatus:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined]
        status.available = 4 << 30  # what any machine that trains has
    return status


def lines_of(path: str) -> list[str]:
    """The lines of a file of the Linux kernel; [] elsewhere."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
