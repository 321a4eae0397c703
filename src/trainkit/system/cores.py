"""The processor cores that this process may use, and how busy other programs keep them."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_GROUPS = Path("/proc/self/cgroup")
_TOPOLOGY = Path("/sys/devices/system/cpu")
_STAT = Path("/proc/stat")
_SHORTEST = 0.25
"""Seconds below which the time of other programs is not told: the system counts it in hundredths of a second."""


def visible_cores() -> int:
    """Processor cores that this process may run on; two hyperthreads count as two."""
    return len(_allowed()) or os.cpu_count() or 1


def count_cores() -> int:
    """How many of the visible cores this process may keep busy: a container may have a quota of their time."""
    return min(visible_cores(), _quota() or visible_cores())


def physical_cores() -> int | None:
    """Cores that this process may use, within the quota of its container; two hyperthreads of a core count as one.

    None where the system does not say.
    """
    try:
        siblings = {(_TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list").read_text() for cpu in _allowed()}
    except OSError:
        return None
    return min(len(siblings), _quota() or len(siblings)) or None


def _allowed() -> set[int]:
    """Numbers of the CPUs in the affinity mask; none where the system has no such mask."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _quota() -> int | None:
    """CPUs that the cgroups v2 of this process allow, rounded up; None without a quota."""
    allowed = []
    for folder in cgroups():
        with suppress(OSError, ValueError):  # "max" is no number
            quota, period = map(int, (folder / "cpu.max").read_text().split())
            allowed.append(max(1, -(-quota // period)))
    return min(allowed, default=None)


def cgroups() -> list[Path]:
    """The folders of the cgroup v2 of this process and of those around it. A container sees its own as the root."""
    with suppress(OSError):
        for line in _GROUPS.read_text().splitlines():
            if line.startswith("0::/"):
                names = [name for name in line[4:].split("/") if name not in ("", "..")]
                return [_CGROUP.joinpath(*names[:depth]) for depth in range(len(names) + 1)]
    return [_CGROUP]


@dataclass(frozen=True)
class CpuTime:
    """Seconds of CPU time up to a moment, on the CPUs that this process may use."""

    at: float
    """The moment, by ``time.monotonic``."""
    all_programs: float
    own: float

    @classmethod
    def now(cls) -> CpuTime | None:
        """None where the system does not say."""
        names = {f"cpu{cpu}" for cpu in _allowed()}
        try:
            lines = [words for line in _STAT.read_text().splitlines() if (words := line.split())[0] in names]
            # proc(5): user, nice, system, idle, iowait, irq, softirq. Time that the host takes is not a program's.
            ticks = sum(int(words[field]) for words in lines for field in (1, 2, 3, 6, 7))
        except (OSError, IndexError, ValueError):
            return None
        return cls(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])) if lines else None


def cores_of_others(since: CpuTime | None) -> float | None:
    """How many cores other programs kept busy since then, on average; None where that cannot be known."""
    now = CpuTime.now()
    if since is None or now is None or now.at - since.at < _SHORTEST:
        return None
    others = (now.all_programs - since.all_programs) - (now.own - since.own)
    return max(0.0, others) / (now.at - since.at)
