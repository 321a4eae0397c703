"""Cores that may be used, by the files of a Linux kernel; and how busy others keep them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainkit.system import CpuTime, cores_of_others, count_cores, physical_cores, visible_cores
from trainkit.system import cores as module

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads files of a Linux kernel")


@pytest.fixture
def four_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with four cores of two hyperthreads each; the folder holds the limits of its container."""
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.setattr(module, "_TOPOLOGY", tmp_path)
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    monkeypatch.setattr(module, "_allowed", lambda: set(range(8)))
    return tmp_path


def test_hyperthreads_of_a_core_count_once(four_cores: Path) -> None:
    assert physical_cores() == 4
    assert count_cores() == 8


@pytest.mark.parametrize(
    ("allowed", "expected"), [({0, 4}, 1), ({0, 1}, 2), ({0, 1, 5}, 2), (set(), None), ({0, 99}, None)]
)
def test_only_cores_of_the_affinity_mask_count(
    four_cores: Path, monkeypatch: pytest.MonkeyPatch, allowed: set[int], expected: int | None
) -> None:
    monkeypatch.setattr(module, "_allowed", lambda: allowed)
    assert physical_cores() == expected


@pytest.mark.parametrize(
    ("text", "physical", "all_cores"),
    [
        ("150000 100000\n", 2, 2),
        ("50000 100000\n", 1, 1),
        ("600000 100000\n", 4, 6),
        ("900000 100000\n", 4, 8),
        ("max 100000\n", 4, 8),
        ("nonsense\n", 4, 8),
    ],
)
def test_the_quota_of_a_container_is_a_limit(four_cores: Path, text: str, physical: int, all_cores: int) -> None:
    (four_cores / "cpu.max").write_text(text)
    assert (physical_cores(), count_cores(), visible_cores()) == (physical, all_cores, 8)


def test_the_lowest_quota_around_a_process_counts(four_cores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of Slurm or systemd sees the files of the whole machine, and its limit is that of a group further in."""
    groups = four_cores / "groups"
    groups.write_text("12:cpu:/other\n0::/slurm/job_7/step_0\n")
    monkeypatch.setattr(module, "_GROUPS", groups)
    (four_cores / "slurm" / "job_7" / "step_0").mkdir(parents=True)
    (four_cores / "slurm" / "cpu.max").write_text("700000 100000\n")
    (four_cores / "slurm" / "job_7" / "cpu.max").write_text("300000 100000\n")
    (four_cores / "slurm" / "job_7" / "step_0" / "cpu.max").write_text("max 100000\n")
    assert count_cores() == 3


def test_this_machine_has_cores() -> None:
    assert 1 <= count_cores() <= (os.cpu_count() or 1)
    assert 1 <= (physical_cores() or 1) <= count_cores()


def test_time_of_other_programs_on_the_allowed_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields as in proc(5), in hundredths of a second: user, nice, system, idle, iowait, irq, softirq, steal."""
    stat = tmp_path / "stat"
    monkeypatch.setattr(module, "_STAT", stat)
    monkeypatch.setattr(module, "_allowed", lambda: {1, 2})
    monkeypatch.setattr(module.os, "sysconf", lambda name: 100)
    stat.write_text(
        "cpu 9 9 9 9 9 9 9 9\ncpu0 7 7 7 7 7 7 7 7\ncpu1 100 20 30 999 999 4 6 999\ncpu2 40 0 0 9 9 0 0 9\n"
    )
    now = CpuTime.now()
    assert now is not None
    assert now.all_programs == pytest.approx(2.0)
    stat.write_text("intr 1 2 3\n")
    assert CpuTime.now() is None


@pytest.mark.parametrize(
    ("all_programs", "own", "expected"), [(103.0, 51.0, 1.0), (101.0, 51.0, 0.0), (100.5, 51.0, 0.0)]
)
def test_time_of_this_process_is_not_of_others(
    monkeypatch: pytest.MonkeyPatch, all_programs: float, own: float, expected: float
) -> None:
    monkeypatch.setattr(CpuTime, "now", lambda: CpuTime(12.0, all_programs, own))
    assert cores_of_others(CpuTime(10.0, 100.0, 50.0)) == expected
    assert cores_of_others(None) is None
    assert cores_of_others(CpuTime(11.8, 100.0, 50.0)) is None, "too short to tell"


@linux
def test_a_child_that_is_still_running_is_another_program() -> None:
    since = CpuTime.now()
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        while (found := cores_of_others(since)) is None or found < 0.05:
            pass
    finally:
        child.kill()
        child.wait()
    assert found <= count_cores()
