"""What a process that shares a run with others knows without torch: its place, and what it tells its launcher.

torchrun, and trainkit's own launcher that is built on it, set the environment. Each process writes its number and its
end into the folder that the launcher gave it.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from trainkit.errors import UserError

LAUNCHED = "TRAINKIT_LAUNCHED"
"""Set in the processes that ``trainkit ... --nproc`` starts: the number of the process that has started them."""
MEETING = "TRAINKIT_MEETING"
"""Set with it: a file at which they meet; other launchers set an address."""
TRIALS = "TRAINKIT_TRIALS"
"""Set in the processes of a sweep's trials, and in those that they start."""
_PID, _END, _RUN, _FAILED = "pid", "end.json", "run", "failed"


@dataclass(frozen=True)
class End:
    """How a process ended."""

    exit_code: int
    message: str
    lost: bool = False
    """Whether it ended because another one was gone."""


def num_ranks() -> int:
    """How many processes share the run, as torchrun says; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """The number of this process among those that share the run."""
    return int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def set_from_slurm() -> None:
    """Take the place of this process from the variables that ``srun`` sets, as torchrun would say it.

    Raises:
        UserError: this process was not started by ``srun``.
    """
    try:
        names = {"RANK": "PROCID", "WORLD_SIZE": "NTASKS", "LOCAL_RANK": "LOCALID"}
        found = {name: os.environ[f"SLURM_{of}"] for name, of in names.items()}
        job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ.get("SLURM_STEP_ID", "0"))
        hosts = _of_step("NODELIST") or os.environ["SLURM_JOB_NODELIST"]
        int(found["RANK"]), int(found["WORLD_SIZE"])
    except (KeyError, ValueError):
        raise UserError("--launcher slurm: SLURM_PROCID and its like are not set; start the command by srun") from None
    # Of each machine, in their order: 4(x2),3 stands for 4, 4 and 3.
    counts = re.findall(
        r"(\d+)(?:\(x(\d+)\))?", _of_step("TASKS_PER_NODE") or os.environ.get("SLURM_TASKS_PER_NODE", "")
    )
    by_node = [count for count, times in counts for _ in range(int(times or 1))]
    here = int(os.environ.get("SLURM_NODEID", "0"))
    found["LOCAL_WORLD_SIZE"] = by_node[here] if here < len(by_node) else "1"
    # The first host of node[003-007,12],other is node003. Ports by job and step: two of them do not meet.
    first = re.sub(r"\[([^],-]*)[^]]*\]", r"\1", re.split(r",(?![^[]*\])", hosts)[0])
    port = 20_000 + (job + 101 * step) % 20_000
    address = {"MASTER_ADDR": first, "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": f"slurm-{job}-{step}"}
    for name, value in {**found, **address}.items():
        os.environ.setdefault(name, value)


def _of_step(name: str) -> str:
    """What ``srun`` says of its own step, which may have a part of the job's machines only."""
    return os.environ.get(f"SLURM_STEP_{name}", "")


def local_rank() -> int:
    """The number of this process among those on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if num_ranks() > 1 else 0


def ranks_here() -> int:
    """How many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if num_ranks() > 1 else 1


def trials_here() -> int:
    """How many trials of a sweep share this machine."""
    return int(os.environ.get(TRIALS, "1"))


def share_cores(trials: int) -> None:
    """Say that this process is one of several trials."""
    os.environ[TRIALS] = str(trials)


def by_trainkit() -> bool:
    """Whether ``trainkit ... --nproc`` has started this process."""
    return LAUNCHED in os.environ


def as_option() -> str:
    """How a command line asks for as many processes again; nothing where trainkit did not start them."""
    return f" --nproc {num_ranks()}" if by_trainkit() and num_ranks() > 1 else ""


def is_orphan() -> bool:
    """Whether the process that started this one for ``--nproc`` is gone."""
    return by_trainkit() and os.getppid() != int(os.environ[LAUNCHED])


def meeting() -> str | None:
    """The file at which the processes meet; None where they meet at an address."""
    return os.environ.get(MEETING)


def restarts() -> int:
    """How often the launcher has started the processes again after one died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def say_pid() -> None:
    """Tell the launcher the number of this process, to which it passes signals on."""
    _write(_PID, str(os.getpid()))


def say_run(folder: Path) -> None:
    """Tell the launcher where the run is."""
    _write(_RUN, str(folder))


def say_end(end: End) -> bool:
    """Tell the launcher how this process ends. Returns whether there is one, which makes the exit code of it."""
    return _write(_END, json.dumps(asdict(end)))


def say_failed(folder: Path) -> None:
    """Tell a process that it is ended because another one failed, which the launcher says."""
    with suppress(OSError):
        (folder / _FAILED).touch()


def has_failed() -> bool:
    """Whether this process is ended because another one failed."""
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    return by_trainkit() and error_file is not None and Path(error_file).with_name(_FAILED).exists()


def has_pid(folder: Path) -> bool:
    """Whether a process has told its number: it listens to signals."""
    return (folder / _PID).exists()


def read_run(folder: Path) -> str | None:
    return _read(folder / _RUN) or None


def read_end(folder: Path) -> End | None:
    text = _read(folder / _END)
    return End(**json.loads(text)) if text else None


def _write(name: str, text: str) -> bool:
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not by_trainkit() or not error_file:
        return False
    path = Path(error_file).with_name(name)
    with suppress(OSError):
        path.with_suffix(".part").write_text(text, encoding="utf-8")
        path.with_suffix(".part").replace(path)
        return True
    return False


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
