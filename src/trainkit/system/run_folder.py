"""The folder of a run: claimed by one process, described by ``run.json``, found again later."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from trainkit.errors import TrainkitError, UserError
from trainkit.system import durable
from trainkit.system.processes import Process, is_alive, this_process

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FOLDER_NAME = re.compile(r"(?P<time>\d{8}-\d{6})_(?P<name>.+?)(_(?P<number>\d+))?")
_MAX_INFO_BYTES = 16 << 20
_KINDS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("config", "origins", "metrics", "facts", "choices"), (dict, "an object")),
    **dict.fromkeys(("status", "name", "monitor", "started"), (str, "text")),
    **dict.fromkeys(("seconds", "epochs_completed"), (int | float | None, "a number")),
}
"""What ``run.json`` has under keys that are read back."""
# Locks held by this process: a forked data worker must not keep one alive after its parent.
_held_descriptors: set[int] = set()


class RunLocked(UserError):
    """Another process works in this run folder."""

    def __init__(self, path: Path, owner: Mapping[str, Any], *, what: str = "in this run") -> None:
        self.owner = dict(owner)
        who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
        since = f" since {owner['since']}" if owner.get("since") else ""
        super().__init__(f"{path}: {who} is working {what}{since}; wait for it, stop it, or start another run")


class _Inside:
    """The path of a file or folder of a run: an attribute of ``RunDir``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: RunDir, kind: type[RunDir]) -> Path:
        return run.path / self.name


@dataclass(frozen=True, order=True)
class RunDir:
    """The files of a run; the constructor reads and creates nothing."""

    path: Path

    @property
    def name(self) -> str:
        """That of the config, without the time and the number of the folder."""
        order = _order(self.path.name)
        return self.path.name if order is None else order[1]

    @property
    def made(self) -> str:
        """``YYYYMMDD-HHMMSS``, from the folder's name, or from ``run.json`` where it was renamed; empty if unknown."""
        return (_order(self.path.name) or _order_of_renamed(self) or ("",))[0]

    checkpoints = _Inside("checkpoints")
    config = _Inside("config.yaml")
    """The config as the user wrote it, then the overrides as comments."""
    resolved_config = _Inside("config.resolved.yaml")
    info = _Inside("run.json")
    metrics = _Inside("metrics.jsonl")
    log = _Inside("train.log")
    plots = _Inside("plots")
    exports = _Inside("exports")
    tensorboard = _Inside("tensorboard")
    lock_file = _Inside(".lock")

    def read_info(self) -> dict[str, Any]:
        """``run.json``; {} where there is none. Where it cannot be read, "problem" says why.

        Values of a wrong kind are left out, and "problem" names them.
        """
        try:
            with open(self.info, "rb") as file:
                value = json.loads(file.read(_MAX_INFO_BYTES))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            return {"problem": f"cannot read {self.info}: {error}"}
        if not isinstance(value, dict):
            return {"problem": f"{self.info} is not a JSON object"}
        wrong = {key: what for key, (kind, what) in _KINDS.items() if key in value and not isinstance(value[key], kind)}
        if "metrics" not in wrong and not all(isinstance(of, dict) for of in value.get("metrics", {}).values()):
            wrong["metrics"] = "an object for each split"
        if wrong:
            problem = f"{self.info}: " + ", ".join(f"{key!r} is not {what}" for key, what in wrong.items())
            value = {**{key: item for key, item in value.items() if key not in wrong}, "problem": problem}
        return value

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replace ``run.json``."""
        durable.write_json(self.info, info)

    def update_info(self, **changes: Any) -> None:
        """Change keys of ``run.json``; a damaged one is replaced by the changes alone."""
        known = self.read_info()
        known.pop("problem", None)
        self.write_info({**known, **changes})

    @property
    def seconds(self) -> float:
        """How long the run took so far, all its parts together, as run.json has it; 0 where that is not known.

        Killed parts are not in it.
        """
        known = self.read_info().get("seconds")
        return float(known) if isinstance(known, int | float) and 0 < known <= sys.float_info.max else 0.0

    def status(self) -> str:
        """running, finished, interrupted, failed: why; "interrupted (killed)" where a running one has died."""
        status = str(self.read_info().get("status", "unknown"))
        if status == "running" and self.lock_owner() is None:
            return "interrupted (killed)"
        return status

    def lock_owner(self) -> dict[str, Any] | None:
        """pid, host and start time of the process that works in this run; None: none does. Leaves the lock alone."""
        return _living_owner(self.lock_file)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            RunLocked: a living process holds it.
        """
        with locked(self.lock_file, of=self.path):
            yield


@contextlib.contextmanager
def locked(path: Path, *, of: Path, what: str = "in this run") -> Iterator[None]:
    """Hold a lock file for this process.

    Args:
        of: what is locked, for the message.
        what: what its owner is working in or on, for the message.

    Raises:
        RunLocked: a living process holds it.
    """
    descriptor = _take_lock(path, of=of, what=what)
    try:
        yield
    finally:
        _held_descriptors.discard(descriptor)
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _take_lock(path: Path, *, of: Path, what: str) -> int:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise durable.WriteError(path, error) from error
    try:
        locked = _flock(descriptor)
        owner = _living_owner(path)
        # System locks end with their process and work across containers and machines: where they exist, the content of
        # the file does not matter. Elsewhere the process in the file decides.
        if locked is False or (locked is None and owner is not None):
            raise RunLocked(of, owner or _read_owner(path), what=what)
        if not _is_file_at(descriptor, path):  # its owner removed it in this moment
            os.close(descriptor)
            return _take_lock(path, of=of, what=what)
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now().isoformat(timespec="seconds")}
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps({**me, "process": this_process().token}).encode())
    except OSError as error:
        os.close(descriptor)
        raise durable.WriteError(path, error) from error
    except BaseException:
        os.close(descriptor)
        raise
    _held_descriptors.add(descriptor)
    return descriptor


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _flock(descriptor: int) -> bool | None:
    """Take the lock. True: taken. False: another process has it. None: the system has no such locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _leave_locks_to_the_parent() -> None:
    for descriptor in _held_descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held_descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks_to_the_parent)


def _living_owner(path: Path) -> dict[str, Any] | None:
    owner = _read_owner(path)
    process = Process.from_token(str(owner.get("process", "")))
    return None if process is None or is_alive(process) is False else owner


def _read_owner(path: Path) -> dict[str, Any]:
    try:
        owner = json.loads(path.read_bytes()[:4096])
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def create_run(root: str | Path, name: str, *, now: datetime) -> RunDir:
    """Claim a new folder ``YYYYMMDD-HHMMSS_name`` under ``root``, with ``_2``, ``_3``, ... where it is taken.

    Raises:
        durable.WriteError: the folder cannot be made.
    """
    root = Path(root)
    stem = f"{now:%Y%m%d-%H%M%S}_{name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            run = RunDir(root / (stem if number == 1 else f"{stem}_{number}"))
            try:
                run.path.mkdir(exist_ok=False)
            except FileExistsError:
                continue
            run.checkpoints.mkdir()
            durable.fsync_folder(run.path)
            durable.fsync_folder(root)
            return run
    except OSError as error:
        raise durable.WriteError(root / stem, error) from error
    raise TrainkitError(f"{root / stem}: ten thousand runs have this name already; use another --run-dir or name")


def list_runs(root: str | Path) -> list[RunDir]:
    """The runs under ``root``, oldest first: by time, then by number; renamed ones too. Other folders are left out."""
    with contextlib.suppress(OSError):
        folders = [RunDir(path) for path in Path(root).iterdir() if path.is_dir()]
        found = [(_order(run.path.name) or _order_of_renamed(run), run) for run in folders]
        return [run for order, run in sorted((order, run) for order, run in found if order)]
    return []


def _order(folder_name: str) -> tuple[str, str, int] | None:
    match = _FOLDER_NAME.fullmatch(folder_name)
    return (match["time"], match["name"], int(match["number"] or 1)) if match else None


def _order_of_renamed(run: RunDir) -> tuple[str, str, int] | None:
    """By the time in its ``run.json``, first where that is damaged; None for what is no run."""
    info = run.read_info()
    started = str(info.get("started", ""))[:19].replace("-", "").replace(":", "").replace("T", "-")
    return (started, run.path.name, 1) if started or "problem" in info else None


def newest_run(root: str | Path, *, unfinished: bool = False, config_hash: str | None = None) -> RunDir | None:
    """The newest run; with ``unfinished`` or ``config_hash`` only of unfinished runs, or runs of that config."""
    for run in reversed(list_runs(root)):
        info = run.read_info()
        if unfinished and (not info or info.get("status") == "finished"):
            continue
        if config_hash is not None and info.get("config_hash") != config_hash:
            continue
        return run
    return None
