"""Tiny runs that stop where a test says, go on in fresh objects, and are compared bit by bit."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from trainkit.config import LoadedConfig, load_config
from trainkit.errors import Interrupted
from trainkit.system.frontend import Frontend
from trainkit.system.run_folder import RunDir, newest_run
from trainkit.workflows.selftest import digests_of
from trainkit.workflows.train.run import resume, train

# 3 epochs of 7 batches, the last one smaller; dropout, shuffling, augmentation.
MLP = """
name: tiny
dataset: {type: digits, val_fraction: 0.1, test_fraction: 0.2}
transforms: [{type: random_crop, padding: 1}, {type: normalize, mean: [0.3], std: [0.4]}]
model: {type: mlp, hidden_sizes: [16], dropout: 0.2}
optimizer: {type: sgd, lr: 0.05, momentum: 0.9}
training: {epochs: 3, batch_size: 200, precision: fp32}
logging: {every: 1, plots: false}
"""
CNN = MLP.replace(
    "{type: mlp, hidden_sizes: [16], dropout: 0.2}",
    "{type: cnn, blocks: [{channels: 4, pool: 2}, {channels: 4}], norm: batch, dropout: 0.2, init: whiten}",
)
STEPS = 21
FINE_TUNED = """
name: tiny
dataset: {type: digits, val_fraction: 0.1, test_fraction: 0.2}
transforms: [{type: random_crop, padding: 1}, {type: normalize, mean: [0.3], std: [0.4]}]
model: {type: cnn, blocks: [{channels: 4, pool: 2}, {channels: 4}], norm: batch, dropout: 0.2}
optimizer: {type: adamw, lr: 0.01}
fine_tuning: {freeze: backbone, unfreeze: [{at: 5st, modules: [blocks.1]}, {at: 12st, modules: all}]}
training: {epochs: 3, batch_size: 200, precision: fp32}
logging: {every: 1, plots: false}
"""
"""Something is unfrozen in the middle of the first epoch and of the second."""


class StopAt:
    """A display that asks for a stop when the step has been logged; with ``after_epoch`` when the epoch has."""

    def __init__(self, frontend: Frontend, step: int | None, *, after_epoch: int | None = None) -> None:
        self.frontend, self.step, self.after_epoch = frontend, step, after_epoch

    def log(self, record) -> None:
        step = record["type"] == "step" and record["step"] == self.step
        epoch = record["type"] == "epoch" and record["epoch"] == self.after_epoch
        if step or epoch:
            self.frontend.stop.signum = signal.SIGTERM

    def sync(self) -> None: ...

    def close(self) -> None: ...


class Said(list):
    """Collects what the user is told."""

    def __contains__(self, text: object) -> bool:
        return any(str(text) in line for line in self)


def frontend(*, stop_at: int | None = None, after_epoch: int | None = None, say: Callable | None = None) -> Frontend:
    front = Frontend(
        say=say or (lambda message: None),
        make_display=lambda setup, batches: StopAt(front, stop_at, after_epoch=after_epoch),
    )
    return front


def load(folder: Path, text: str = MLP, *overrides: str) -> LoadedConfig:
    path = folder / "config.yaml"
    path.write_text(text)
    return load_config(path, overrides=overrides)


def train_with_stops(
    loaded: LoadedConfig,
    runs_dir: Path,
    stops: Sequence[int] = (),
    *,
    between: Sequence[Sequence[str]] = (),
    before: Callable[[], object] = lambda: None,
) -> RunDir:
    """Train to the end, stopped after each of ``stops``.

    Args:
        between: the overrides of each resume.
        before: called before the start and before each resume.
    """
    for number, step in enumerate([*stops, None]):
        before()
        settings = between[number - 1] if number and between else ()
        front = frontend(stop_at=step)
        try:
            if number == 0:
                train(loaded, runs_dir=runs_dir, frontend=front)
            else:
                resume(runs_dir=runs_dir, overrides=settings, frontend=front)
        except Interrupted:
            if step is None:
                raise
        else:
            assert step is None or number == len(stops), f"was not stopped at step {step}"
    run = newest_run(runs_dir)
    assert run is not None
    return run


def differences(one: RunDir, other: RunDir) -> list[str]:
    """What differs between two runs, seconds and timestamps aside."""
    first, second = digests_of(one), digests_of(other)
    assert first.keys() == second.keys()
    return [name for name in first if first[name] != second[name]]
