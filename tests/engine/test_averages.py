"""The mean of the weights: that of torch.optim.swa_utils, with statistics of batch norm that belong to it."""

import copy

import pytest
import torch
from digit_runs import STEPS, assert_same, config_with, run
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from trainkit.builders import build_setup
from trainkit.config import config_from_dict
from trainkit.data.loading import Batch
from trainkit.engine import Swa
from trainkit.engine.averages import recompute_statistics

SWA = {"average": {"type": "swa", "start": "9st", "every": "5st"}}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, momentum=0.3), nn.Dropout(0.0), nn.Linear(8, 3))


def drift(model, seed):
    torch.manual_seed(seed)
    for tensor in [*model.parameters(), model[1].running_mean]:
        tensor.data.add_(torch.randn_like(tensor))


def batch_of(inputs: torch.Tensor) -> Batch:
    return Batch(inputs, torch.zeros(len(inputs), dtype=torch.int64), torch.arange(len(inputs)))


def test_the_mean_and_its_statistics_are_those_of_torch():
    model = network()
    ours, theirs, at = Swa(model, start=4, every=3), AveragedModel(model), []
    for step in range(1, 15):
        drift(model, step)
        before = ours.num_averaged
        ours.update(model, step=step)
        if ours.num_averaged > before:
            theirs.update_parameters(model)
            at.append(step)
    assert at == [4, 7, 10, 13]
    for one, other in zip(ours.model.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert not ours.ready
    inputs = list(torch.randn(4, 10, 6))
    recompute_statistics(ours.model, map(batch_of, inputs), lambda model, some: model(some))
    update_bn(inputs, theirs)
    torch.testing.assert_close(ours.model[1].running_mean, theirs.module[1].running_mean)
    torch.testing.assert_close(ours.model[1].running_var, theirs.module[1].running_var)
    assert ours.model[1].momentum == 0.3
    assert not any(layer.training for layer in ours.model.modules())


def test_a_ragged_batch_counts_by_its_samples_and_dropout_is_off():
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(2))
    inputs = torch.randn(13, 2)
    recompute_statistics(model, map(batch_of, inputs.split(5)), lambda model, some: model(some))
    torch.testing.assert_close(model[1].running_mean, inputs.mean(0))


def test_frozen_layers_keep_their_statistics():
    """What comes behind them was trained with these."""
    trained = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2)).train()
    trained[0].eval()
    model = copy.deepcopy(trained)
    recompute_statistics(model, [batch_of(torch.randn(9, 2))], lambda model, some: model(some), trained=trained)
    assert model[0].running_mean.tolist() == [0, 0]
    assert model[1].running_mean.tolist() != [0, 0]


def test_without_batch_norm_the_mean_is_ready_at_once():
    swa = Swa(nn.Linear(2, 2), start=2, every=1)
    assert not swa.ready
    swa.update(nn.Linear(2, 2), step=1)
    assert not swa.ready
    swa.update(nn.Linear(2, 2), step=2)
    assert swa.ready


@pytest.mark.parametrize("stop", [8, 9, 14, 16, 20])
def test_a_resumed_run_has_the_same_mean(stop):
    whole = run(SWA)
    half = run(SWA, stop=stop)
    assert half["progress"]["steps_completed"] == stop
    assert half["swa"]["num_averaged"] == sum(step <= stop for step in (9, 14, 19))
    assert_same(whole, run(SWA, resume=half))


def test_a_checkpoint_has_the_weights_that_were_validated():
    """Those of the model before the start; then the mean, with the statistics of the epoch's batches."""
    before = run(SWA, stop=8)
    assert before["swa"]["num_averaged"] == 0
    assert before["ema"] is None
    saved = run(SWA)
    assert saved["progress"]["steps_completed"] == STEPS
    setup = build_setup(config_with(SWA))
    model = copy.deepcopy(setup.model)
    model.load_state_dict(saved["ema"]["model"])
    batches = list(setup.batches("train", training=True).epoch(2))
    recompute_statistics(model, batches, lambda model, some: model(some))
    assert_same(dict(model.state_dict()), dict(saved["ema"]["model"]))
    middle = run(SWA, stop=10)  # a step after the first weights, whose statistics are not known yet
    assert middle["swa"]["num_averaged"] == 1
    assert middle["ema"] is None


def test_a_share_of_the_run_is_whole_epochs():
    def start(**average):
        config = config_from_dict(
            {
                "dataset": "digits",
                "model": "mlp",
                "training": {"epochs": 10, "batch_size": 200, "average": {"type": "swa", **average}},
            },
            where="test",
        )
        swa = build_setup(config).state(steps_per_epoch=7).swa
        return swa.start, swa.every

    assert start() == (56, 7)  # of 70 steps, 52.5 are not whole epochs
    assert start(start="50%") == (35, 7)
    assert start(every="10st") == (53, 10)
    assert start(start="12.5%", every="10st") == (9, 10)
    assert start(start=4, every="2ep") == (28, 14)
