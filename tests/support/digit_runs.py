"""Runs of the training loop alone, on the digits: no run folder, and a plan that a test may change."""

import copy

import torch

from trainkit.builders import build_setup
from trainkit.config import config_from_dict
from trainkit.engine import fit

# 3 epochs of 7 batches: six of 200 samples and one of 87.
CONFIG = {
    "dataset": {"type": "digits", "val_fraction": 0.1, "test_fraction": 0.2},
    "transforms": [{"type": "normalize", "mean": [0.3], "std": [0.4]}],
    "model": {"type": "mlp", "hidden_sizes": [16], "norm": "batch", "dropout": 0.3},
    "optimizer": {"type": "sgd", "lr": 0.0625, "momentum": 0.9},
    "scheduler": "constant",
    "loss": "auto",
    "fine_tuning": {},
    "training": {"epochs": 3, "batch_size": 200, "precision": "fp32", "compile": False},
}
STEPS = 21


class States(list):
    """Recorder and checkpointer in one; keeps the saved states."""

    def log(self, record): ...

    def sync(self): ...

    def close(self): ...

    def save(self, state, *, metrics, best):
        self.append(copy.deepcopy(state))


def config_with(changes, device="cpu"):
    """``CONFIG`` with other sections, or other keys of ``training``."""
    sections = {key: value for key, value in changes.items() if key in CONFIG}
    training = CONFIG["training"] | {key: value for key, value in changes.items() if key not in CONFIG}
    return config_from_dict({**CONFIG, "device": device, **sections, "training": training}, where="test")


def run(changes, *, device="cpu", plan_of=None, model_change=None, resume=None, stop=None, states=None):
    """Train to the end or to a stop, from the start or from a state. Returns the last state.

    ``plan_of`` gives the plan for a setup; ``model_change`` may add hooks.
    """
    setup = build_setup(config_with(changes, device))
    batches = setup.batches("train", training=True)
    state = setup.state(steps_per_epoch=batches.batches_per_epoch)
    if model_change is not None:
        model_change(setup.model)
    if resume is not None:
        state.load_state_dict(copy.deepcopy(resume))
    states = States() if states is None else states
    fit(
        state,
        setup.plan() if plan_of is None else plan_of(setup),
        train=batches,
        val=setup.batches("val"),
        recorder=states,
        checkpointer=states,
        should_stop=lambda: state.progress.steps_completed == stop,
    )
    return states[-1]


def assert_same(first, second, key="state"):
    """Bitwise; apart from seconds."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), key
        for name in first:
            if not str(name).endswith("_seconds"):
                assert_same(first[name], second[name], f"{key}.{name}")
    elif isinstance(first, list):
        for at, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same(one, other, f"{key}.{at}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), key
    else:
        assert first == second or first != first, key
