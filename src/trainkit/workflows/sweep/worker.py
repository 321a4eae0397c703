"""A trial in a process of its own: an ordinary run, which tells the sweep of each epoch and asks whether to go on.

The fork server imports this file, and PyTorch with it, once; each trial is a fork of it. Importing PyTorch starts no
threads, which a fork would lose.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from trainkit.config import LoadedConfig, load_config
from trainkit.errors import Interrupted, TrainkitError
from trainkit.plugins import using
from trainkit.runtime import Ranks
from trainkit.system import Frontend, RunDir, StopRequest, catch_stop_signals, launched, own_process
from trainkit.workflows.train import continue_run, train

LOCK_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Job:
    """A run to train, or to go on with: plain values."""

    name: str
    config: Mapping[str, Any]
    """Every value, and the rest of a loaded config below."""
    path: Path
    text: str
    overrides: tuple[str, ...]
    origins: Mapping[str, Any]
    plugins: tuple[str, ...]
    objective: str
    runs_dir: Path
    run: Path | None
    """The folder that it has already."""
    log: Path
    """Where what it prints goes."""
    trials: int
    """How many share the cores."""
    device: str | None

    def load(self) -> LoadedConfig:
        loaded = load_config(self.config, plugins=self.plugins)
        return replace(loaded, path=self.path, text=self.text, overrides=self.overrides, origins=dict(self.origins))


def job_of(loaded: LoadedConfig, *, name: str, plugins: tuple[str, ...], **rest: Any) -> Job:
    """The run of a config under another name."""
    config = {**loaded.resolved(), "name": name}
    origins = dict(loaded.origins)
    return Job(name, config, loaded.path, loaded.text, loaded.overrides, origins, plugins, **rest)


def use_device(device: str | None) -> None:
    """Let this process see one GPU alone, so that the config of a trial does not depend on where it runs."""
    if device is None:
        return
    number = device.partition(":")[2]
    visible = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif device.startswith("cuda"):
        index = int(number or 0)
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[index] if index < len(visible) else str(index)


class Told:
    """A recorder that tells the sweep of each epoch, and stops the run after it where the sweep says so."""

    def __init__(self, pipe: Connection, job: Job, stop: StopRequest) -> None:
        self.pipe, self.objective, self.stop = pipe, job.objective, stop
        self.epochs = job.config["training"]["epochs"]
        self.answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self.answers.put(self.pipe.recv())
        # The sweep is gone: the state is saved for the next one.
        self.stop.signum = self.stop.signum or signal.SIGTERM
        self.answers.put("stop")

    def log(self, record: Mapping[str, Any]) -> None:
        if record["type"] == "epoch":
            value = record.get(self.objective)
            known = [name for name in record if name.startswith(("val_", "train_"))]
            with suppress(OSError):
                self.pipe.send(("epoch", record["epoch"], value, known))
            stops = self.answers.get() == "stop" and record["epoch"] < self.epochs  # else the scores are still to come
            if stops and self.stop.signum is None:
                self.stop.signum = 0  # a request, which no signal made

    def sync(self) -> None: ...
    def close(self) -> None: ...


def work(job: Job, pipe: Connection) -> None:
    """Train, and tell the sweep how it ended: complete, stopped, or failed with a reason."""
    _print_into(job.log)
    own_process()
    launched.share_cores(job.trials)
    use_device(job.device)
    with catch_stop_signals() as stop:
        told = Told(pipe, job, stop)
        pipe.send(("started", time.time()))
        frontend = Frontend(say=lambda line: print(line, flush=True), make_display=lambda *_: told, stop=stop)
        try:
            run_of(job, frontend)
            end: tuple[str, ...] = ("complete",)
        except Interrupted as error:
            end = ("stopped", str(error))
        except TrainkitError as error:
            end = ("failed", str(error))
        except Exception as error:  # noqa: BLE001  (a trial may fail in any way, and the sweep goes on)
            traceback.print_exc()
            end = ("failed", f"{type(error).__name__}: {error}")
        with suppress(OSError):
            pipe.send(end)
    sys.stdout.flush()


def run_of(job: Job, frontend: Frontend) -> None:
    """Train the job's run, or go on with it."""
    with using(job.plugins):
        loaded = job.load()
        if job.run is None:
            train(loaded, runs_dir=job.runs_dir, frontend=frontend)
            return
        run = RunDir(job.run)
        while run.lock_owner() is not None:  # the process of a sweep that was killed is saving its state
            frontend.check("before the first step")
            time.sleep(LOCK_POLL_SECONDS)
        continue_run(run, loaded, allow_change=(), ranks=Ranks(), frontend=frontend)


def _print_into(path: Path) -> None:
    """Append what this process prints to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
