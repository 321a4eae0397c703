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
from trainkit.system import cores

CPU = torch.device("cpu")


@pytest.fixture
def limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cgroups of a machine, of which this process is in ``slurm/job_7``."""
    (tmp_path / "slurm" / "job_7").mkdir(parents=True)
    (tmp_path / "groups").write_text("4:memory:/other\n0::/slurm/job_7\n")
    monkeypatch.setattr(cores, "_CGROUP", tmp_path)
    monkeypatch.setattr(cores, "_GROUPS", tmp_path / "groups")
    return tmp_path


def limit(group: Path, most: str, used: int, droppable: int = 0) -> None:
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon {used}\ninactive_file {droppable}\n")


def test_limits_of_a_container_are_read(limits: Path) -> None:
    """It sees its own group as the root."""
    unlimited = free_host_bytes()
    limit(limits, "1000", used=700, droppable=150)
    assert (module.host_bytes(), free_host_bytes()) == (1000, 450)
    limit(limits, "max", used=700)
    assert module.host_bytes() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert free_host_bytes() > unlimited // 2


def test_limits_of_all_groups_around_a_process_count(limits: Path) -> None:
    """A job of Slurm or systemd sees the files of the whole machine, and its limit is that of a group further in."""
    limit(limits / "slurm" / "job_7", "max", used=300)
    limit(limits / "slurm", "1000", used=700)
    assert (module.host_bytes(), free_host_bytes()) == (1000, 300)
    limit(limits / "slurm" / "job_7", "800", used=300, droppable=100)
    assert (module.host_bytes(), free_host_bytes()) == (800, 300), "other jobs leave 300"
    limit(limits / "slurm", "2000", used=700)
    assert free_host_bytes() == 600


def test_free_memory_is_counted_in_bytes() -> None:
    assert 1 << 20 < free_host_bytes() < 1 << 50
    assert free_device_bytes(CPU) > 1 << 20


def test_without_proc_the_whole_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS."""
    monkeypatch.setattr(module, "lines_of", lambda path: [])
    monkeypatch.setattr(module, "cgroups", list)
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
    monkeypatch.setattr(module, "cgroups", list)
    assert free_host_bytes() == expected
