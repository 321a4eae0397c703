"""What a run with frozen parts says, and the weights that it keeps."""

import pytest
import torch
from engine_runs import FINE_TUNED, Said, frontend, load

from trainkit.checkpoints import load_checkpoint
from trainkit.workflows.train.run import train

pytestmark = pytest.mark.usefixtures("fast_runs")
RANDOM = "note: the frozen weights are random; --init-from FILE begins with trained ones"


def test_what_is_frozen_is_said(tmp_path):
    said = Said()
    train(load(tmp_path, FINE_TUNED), runs_dir=tmp_path / "runs", frontend=frontend(say=said.append))
    line = "fine_tuning: 650 of 854 parameters train at first; frozen: blocks.1 until 5st; blocks.0 until 12st"
    assert line in said
    assert RANDOM in said


def test_weights_that_are_not_random_may_be_frozen(tmp_path):
    freeze = ["blocks.0.conv.weight", "blocks.0.norm.weight"]
    for number, (frozen, is_random) in enumerate([(freeze, False), ([*freeze, "blocks.1"], True)]):
        said = Said()
        config = load(tmp_path, FINE_TUNED, "model.init=whiten", f"fine_tuning={{freeze: {frozen}}}")
        train(config, runs_dir=tmp_path / str(number), frontend=frontend(say=said.append))
        assert (RANDOM in said) == is_random


def test_frozen_weights_are_those_of_the_run_before(tmp_path):
    first = train(load(tmp_path, FINE_TUNED, "fine_tuning={}"), runs_dir=tmp_path / "runs", frontend=frontend())
    said = Said()
    config = load(tmp_path, FINE_TUNED, "fine_tuning={freeze: backbone}")
    init = next(first.run.checkpoints.glob("*epoch03*.pth"))
    second = train(config, runs_dir=tmp_path / "runs", init_from=init, frontend=frontend(say=said.append))
    assert RANDOM not in said
    before = load_checkpoint(init)["model"]
    after = load_checkpoint(next(second.run.checkpoints.glob("*epoch03*.pth")))["model"]
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "head.output.weight",
        "head.output.bias",
    }
