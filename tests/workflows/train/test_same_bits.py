"""One, two and four processes that share a run come to the same bits."""

import os
from pathlib import Path

import pytest
from engine_runs import differences
from forked_ranks import CNN, ForkedRanks

from trainkit.system import RunDir, newest_run

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes"), pytest.mark.slow]

MIXED = CNN.replace("clip_grad_norm: 1.0", "mix: mixup_cutmix, sampler: balanced, ema: {decay: 0.99}") + (
    "scheduler: {type: reduce_on_plateau, patience: 0}\n"
)
MLP = """
seed: 1
dataset: {type: digits}
transforms: [normalize]
model: {type: mlp, hidden_sizes: [48, 31], dropout: 0.3}
training: {epochs: 3, batch_size: 50, accumulation_steps: 4, num_threads: 1, early_stopping: {patience: 1}}
logging: {every: 7, plots: false, metrics: [val_roc_auc]}
"""
FROZEN = """
dataset: {type: digits, val_fraction: 0.1, test_fraction: 0.2}
transforms: [{type: normalize, mean: [0.3], std: [0.4]}]
model: {type: cnn, blocks: [{channels: 4, pool: 2}, {channels: 4}], norm: batch, dropout: 0.2, head_dropout: 0.2}
optimizer: {type: adamw, lr: 0.01}
fine_tuning: {freeze: backbone, unfreeze: [{at: 10st, modules: [blocks.1]}, {at: 2ep, modules: all}]}
training: {epochs: 3, batch_size: 200, accumulation_steps: 4, num_threads: 1}
logging: {every: 1, plots: false}
"""
"""The first epoch on features, then with the last block, then with all."""


@pytest.fixture(scope="module")
def ranks():
    one = ForkedRanks(4)
    yield one
    one.close()


def trained(ranks: ForkedRanks, folder: Path, text: str, *changes: str, size: int) -> RunDir:
    folder.mkdir()
    (folder / "c.yaml").write_text(text)
    settings = [word for change in changes for word in ("--set", change)]
    for ended in ranks.trainkit("train", "c.yaml", *settings, folder=folder, size=size):
        assert ended.code == 0, ended.output
    return newest_run(folder / "runs")


@pytest.mark.parametrize("text", [CNN, MIXED, MLP, FROZEN], ids=["cnn", "mixed", "mlp", "frozen"])
def test_one_two_and_four_processes(ranks, tmp_path, text):
    runs = [trained(ranks, tmp_path / f"{size}", text, size=size) for size in (1, 2, 4)]
    assert differences(runs[0], runs[1]) == []
    assert differences(runs[0], runs[2]) == []
    other = trained(ranks, tmp_path / "other", text, "training.accumulation_steps=2", size=2)
    assert differences(runs[0], other) != []  # the number of pieces is a part of the run


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "nadam", "rmsprop", "adagrad"])
def test_every_optimizer(ranks, tmp_path, optimizer):
    changes = [f"optimizer.type={optimizer}", "training.epochs=1"]
    one, two = (trained(ranks, tmp_path / f"{size}", CNN, *changes, size=size) for size in (1, 2))
    assert differences(one, two) == []
