"""The processes that ``trainkit ... --nproc`` has started, found in /proc."""

import contextlib
import os
import signal
from pathlib import Path


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):  # it ended meanwhile
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return sorted(found)


def ranks_of(launcher: int) -> list[int]:
    """The processes that share the work, by rank."""
    by_rank = {}
    for pid in children(launcher):
        with contextlib.suppress(OSError):  # it ended meanwhile
            words = Path(f"/proc/{pid}/environ").read_text().split("\0")
            variables = dict(item.split("=", 1) for item in words if "=" in item)
            if "RANK" in variables:  # else it is about to become one
                by_rank[int(variables["RANK"])] = pid
    return [by_rank[rank] for rank in sorted(by_rank)]


def kill_tree(pid: int) -> None:
    for one in [*children(pid), pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
