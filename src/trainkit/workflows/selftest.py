"""``trainkit selftest resume``: a run that is killed at random moments ends bitwise equal to an undisturbed one."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainkit.checkpoints import CheckpointFolder, load_checkpoint, read_journal
from trainkit.errors import TrainkitError
from trainkit.plugins import plugin_options
from trainkit.recorders import read_json_lines
from trainkit.system import Frontend, RunDir, StopRequest, newest_run

# The parts of a checkpoint that equal runs have equal; the others hold its place and its time.
PARTS = ("model", "optimizer", "plateau", "scaler", "ema", "swa", "progress", "totals", "best", "early_stopping")
_POLL_SECONDS = 0.004
# A child that logs nothing for this long has hung.
_PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Kill:
    """A child process that was killed."""

    step: int
    """The last step that it had logged."""
    saved_step: int | None
    """The step of its newest checkpoint, from where the next child goes on; None for the start."""


@dataclass(frozen=True)
class Comparison:
    """A killed run compared with an undisturbed one."""

    kills: list[Kill]
    differences: list[str]
    """Names of the parts that differ; empty where the runs are bitwise equal."""
    digest: str
    """Of the undisturbed run."""
    killed_digest: str
    steps: int
    lines: int
    """Lines of metrics.jsonl."""
    folder: Path
    seconds: float

    @property
    def passed(self) -> bool:
        return not self.differences


def selftest_resume(
    config: Path,
    *,
    overrides: Sequence[str] = (),
    kills: int = 5,
    seed: int | None = None,
    folder: Path | None = None,
    frontend: Frontend | None = None,
) -> Comparison:
    """Train ``config`` in child processes: once undisturbed, once killed at random moments and resumed each time.

    Args:
        overrides: as ``--set``; the state is saved every 10 steps unless they say otherwise.
        kills: how often; each time after a random step, with SIGKILL.
        seed: of the moments; a new one each time where None.
        folder: where the two runs go; a new temporary folder where None. It is left there.

    Raises:
        TrainkitError: a child failed by itself.
        Interrupted: a stop was asked for; the child was killed.
    """
    started = time.monotonic()
    frontend = frontend or Frontend()
    stop, say = frontend.stop, frontend.say
    folder = Path(tempfile.mkdtemp(prefix="trainkit-selftest-")) if folder is None else folder
    settings = ["checkpoint.every=10st", "logging.plots=false", *overrides, "logging.every=1"]
    command = [
        sys.executable,
        "-m",
        "trainkit",
        *plugin_options(),
        "train",
        str(config),
        "--quiet",
        "--json",
        "--resume",
        "auto",
    ]
    command += [word for setting in settings for word in ("--set", setting)]

    say("training without interruption")
    _Child([*command, "--run-dir", str(folder / "whole")], folder / "whole", stop).wait()
    whole = _only_run(folder / "whole")
    steps = _logged_steps(whole)

    rng = random.Random(seed)
    done: list[Kill] = []
    for step in sorted(rng.randint(1, max(1, steps - 1)) for _ in range(kills)):
        child = _Child([*command, "--run-dir", str(folder / "killed")], folder / "killed", stop)
        if not child.reaches(step):
            break
        time.sleep(rng.uniform(0.0, 0.03))
        child.kill()
        done.append(_read_kill(_only_run(folder / "killed")))
        at = "nothing" if done[-1].saved_step is None else f"step {done[-1].saved_step}"
        say(f"killed after step {done[-1].step} of {steps}; saved until then: {at}")
    say("training to the end")
    _Child([*command, "--run-dir", str(folder / "killed")], folder / "killed", stop).wait()
    killed = _only_run(folder / "killed")

    digests = [digests_of(run) for run in (whole, killed)]
    return Comparison(
        kills=done,
        differences=[name for name in digests[0] if digests[0][name] != digests[1].get(name)],
        digest=_short(digests[0]),
        killed_digest=_short(digests[1]),
        steps=steps,
        lines=len(read_json_lines(whole.metrics)),
        folder=folder,
        seconds=time.monotonic() - started,
    )


class _Child:
    """A training run in a process of its own."""

    def __init__(self, command: Sequence[str], runs_dir: Path, stop: StopRequest) -> None:
        self.runs_dir, self.stop = runs_dir, stop
        self.output = tempfile.TemporaryFile()  # noqa: SIM115  (a pipe that nobody empties would stop the child)
        self.process = subprocess.Popen(command, stdout=self.output, stderr=subprocess.STDOUT)

    def reaches(self, step: int) -> bool:
        """Wait until the run has logged ``step``; False where it has ended before."""
        size, since = 0, time.monotonic()
        while self._runs():
            run = newest_run(self.runs_dir)
            if run is None or not run.metrics.exists():
                continue
            if run.metrics.stat().st_size != size:
                size, since = run.metrics.stat().st_size, time.monotonic()
                owner = run.lock_owner()
                locked = owner is not None and owner.get("pid") == self.process.pid
                if locked and _logged_steps(run) >= step:
                    return True
            if time.monotonic() - since > _PATIENCE_SECONDS:
                self.kill()
                raise TrainkitError(f"{run.path}: nothing was logged for {_PATIENCE_SECONDS:.0f} s")
        self._check()
        return False

    def wait(self) -> None:
        while self._runs():
            pass
        self._check()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _runs(self) -> bool:
        if self.stop():
            self.kill()
            raise self.stop.error("the child was killed")
        time.sleep(_POLL_SECONDS)
        return self.process.poll() is None

    def _check(self) -> None:
        if self.process.returncode != 0:
            self.output.seek(0)
            text = self.output.read().decode(errors="replace").strip()
            raise TrainkitError(f"the training run itself ended with exit code {self.process.returncode}:\n{text}")


def _only_run(runs_dir: Path) -> RunDir:
    run = newest_run(runs_dir)
    if run is None:
        raise TrainkitError(f"{runs_dir}: the child made no run")
    return run


def _read_kill(run: RunDir) -> Kill:
    journal = read_journal(run.checkpoints)
    saved = [entry.step for entry in journal.entries] if journal else []
    return Kill(_logged_steps(run), saved[-1] if saved else None)


def _logged_steps(run: RunDir) -> int:
    return max((record.get("step", 0) for record in read_json_lines(run.metrics)), default=0)


def digests_of(run: RunDir) -> dict[str, str]:
    """SHA-256 of all that equal runs have equal: the parts of the newest and the best state, the log, the scores.

    Seconds and timestamps are left out.
    """
    folder = CheckpointFolder(run.checkpoints)
    newest, _ = folder.newest_good()
    best = folder.best()
    if newest is None:
        raise TrainkitError(f"{run.path}: no checkpoint")
    states = {"newest": load_checkpoint(newest)} | ({} if best is None else {"best": load_checkpoint(best)})
    found = {f"{which} {part}": digest(state.get(part)) for which, state in states.items() for part in PARTS}
    records = [without_seconds(record) for record in read_json_lines(run.metrics)]
    return {**found, "metrics.jsonl": digest(records), "scores": digest(run.read_info().get("metrics"))}


def without_seconds(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if not key.endswith("seconds")}


def digest(value: Any) -> str:
    """SHA-256 of nested plain values and tensors, bit by bit."""
    sha = hashlib.sha256()

    def add(item: Any) -> None:
        match item:
            case Tensor():
                sha.update(f"{item.dtype}{tuple(item.shape)}".encode())
                sha.update(item.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
            case dict():
                for key, inner in without_seconds({str(k): v for k, v in item.items()}).items():
                    sha.update(f"{key!r}:".encode())
                    add(inner)
            case list() | tuple():
                sha.update(f"[{len(item)}]".encode())
                for inner in item:
                    add(inner)
            case _:
                sha.update(json.dumps(item).encode())

    add(value)
    return sha.hexdigest()


def _short(digests: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(digests)).encode()).hexdigest()[:16]
