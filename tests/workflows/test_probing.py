"""The look for dead units at the end of a run costs little, whatever the sizes of the splits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainkit.builders import load_data, open_trained
from trainkit.system.frontend import Frontend
from trainkit.workflows.report import num_probed, probe_model


@given(st.integers(1, 10**7))
def test_a_sixteenth_of_the_training_samples_at_most(num_train):
    assert num_probed(num_train) <= max(64, num_train / 16)
    assert num_probed(num_train) <= 1024


@pytest.fixture
def setup(tiny_run):
    trained = open_trained(tiny_run.best_checkpoint, device="cpu")
    return trained.setup(*load_data(trained.config))


def probed(setup):
    """What is found, and how many samples the model was run on."""
    run = []
    handle = setup.model.register_forward_hook(lambda model, inputs, outputs: run.append(len(outputs)))
    found = probe_model(setup, frontend=Frontend()).dead_units
    handle.remove()
    return found, sum(run)


def test_training_samples_are_not_run_where_nothing_looks_dead(setup):
    (layer,), run = probed(setup)
    assert run == len(setup.data.splits["test"])
    assert not layer.is_mostly_dead
    assert layer.seen == 4 * num_probed(len(setup.data.splits["train"])) < run


def test_few_training_samples_are_run_where_units_look_dead(setup):
    first = next(module for module in setup.model.modules() if isinstance(module, torch.nn.Linear))
    with torch.no_grad():
        first.bias[:20] = -1000
    (layer,), run = probed(setup)
    count = num_probed(len(setup.data.splits["train"]))
    assert layer.is_mostly_dead
    assert (layer.dead >= 20, layer.seen) == (True, 5 * count)
    assert run == len(setup.data.splits["test"]) + count
