"""Free memory: of the machine, of a container, and of systems without /proc."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trainkit.runtime import free_device_bytes, free_host_bytes
from trainkit.runtime import memory as module

CPU = torch.device("cpu")


def test_limits_of_a_container_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CGROUP", tmp_path)
    assert module._cgroup_free_bytes() is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert module._cgroup_free_bytes() == 450
    assert module.host_bytes() == 1000
    assert free_host_bytes() == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert module._cgroup_free_bytes() is None


def test_free_memory_is_counted_in_bytes() -> None:
    assert 1 << 20 < free_host_bytes() < 1 << 50
    assert free_device_bytes(CPU) > 1 << 20


def test_without_proc_the_whole_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS."""
    monkeypatch.setattr(module, "lines_of", lambda path: [])
    monkeypatch.setattr(module, "_cgroup_free_bytes", lambda: None)
    assert free_host_bytes() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("answer", "expected"), [(1, 6_000_000_000), (0, 4 << 30)])
def test_windows_is_asked_for_its_memory(monkeypatch: pytest.MonkeyPatch, answer: int, expected: int) -> None:
    """Windows has neither /proc nor os.sysconf. The real call was never seen: this is its documented form."""

    def global_memory_status(pointer: object) -> int:
        status = pointer._obj  # type: ignore[attr-defined]
        assert status.length == 64
        status.available = 6_000_000_000
        return answer

    kernel = SimpleNamespace(GlobalMemoryStatusEx=global_memory_status)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(module, "lines_of", lambda path: [])
    monkeypatch.setattr(module, "_cgroup_free_bytes", lambda: None)
    assert free_host_bytes() == expected
