"""The loop: equal to one written by hand, the same every time, sums that are right, and what it does at the edges."""

import copy
import json

import numpy as np
import pytest
import torch
from flat_batches import make_batches
from torch import nn
from torch.nn import functional as F

from trainkit.builders.setup import build_setup
from trainkit.config import load_config
from trainkit.data.dataset import Part
from trainkit.engine.loop import fit
from trainkit.engine.losses import build_loss
from trainkit.engine.metrics import ClassificationMetrics
from trainkit.engine.plan import Plan
from trainkit.engine.schedules import build_schedule
from trainkit.engine.state import Best, TrainState
from trainkit.engine.step import compute_gradients
from trainkit.runtime.seeding import permutation
from trainkit.system.frontend import Frontend
from trainkit.workflows.scoring import score
from trainkit.workflows.train.run import train

MLP = """
dataset: {type: digits, val_fraction: 0.1, test_fraction: 0.2}
transforms: [{type: normalize, mean: [0.3], std: [0.4]}]
model: {type: mlp, hidden_sizes: [32]}
optimizer: {type: sgd, lr: 0.05, momentum: 0.9}
training: {epochs: 1, batch_size: 50, precision: fp32}
logging: {every: 1, plots: false}
"""
CNN = MLP.replace(
    "{type: mlp, hidden_sizes: [32]}", "{type: cnn, blocks: [{channels: 8, pool: 2}, {channels: 8}], norm: batch}"
)


@pytest.fixture
def config(tmp_path):
    def write(text: str, *overrides: str):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return load_config(path, overrides=overrides)

    return write


@pytest.mark.parametrize("text", [MLP, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_ten_steps_are_bitwise_those_of_a_loop_written_by_hand(config, tmp_path, text, optimizer):
    """From the same first weights and the same order of the data: plain PyTorch, nothing of trainkit's engine."""
    loaded = config(text, "device=cpu", "optimizer=adam" if optimizer == "adam" else "optimizer.weight_decay=0.001")
    setup = build_setup(loaded.config)
    model, data = setup.model, setup.data
    part, split = data.parts[data.splits["train"].part], data.splits["train"]
    pixels = torch.from_numpy(part.inputs[split.indices])
    targets = torch.from_numpy(part.targets[split.indices])
    inputs = ((pixels.float() / 255) - 0.3) / 0.4
    if text is CNN:
        inputs = inputs.as_strided(inputs.shape, (64, 1, 8, 1))  # channels-last, as convolutions like it
    order = permutation(0, 0, len(targets))
    if optimizer == "adam":
        sgd = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)
    else:
        sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.001, fused=True)
    criterion = nn.CrossEntropyLoss()
    model.train()
    losses = []
    for step in range(10):
        chosen = order[50 * step : 50 * (step + 1)]
        sgd.zero_grad()
        loss = criterion(model(inputs[chosen]), targets[chosen])
        loss.backward()
        sgd.step()
        losses.append(loss.item())

    overrides = [item.removeprefix("--set ") for item in loaded.overrides]
    result = train(config(text, *overrides, "checkpoint.every=10st", "checkpoint.keep_last=9"), runs_dir=tmp_path)
    records = [json.loads(line) for line in result.run.metrics.read_text().splitlines()]
    assert [record["loss"] for record in records if record["type"] == "step"][:10] == losses
    (file,) = result.run.checkpoints.glob("*step000010*.pth")
    saved = torch.load(file, weights_only=True)["model"]
    assert saved.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(saved[name], tensor), name


def weights(result):
    return torch.load(result.best_checkpoint, weights_only=True)["model"]


def test_the_same_command_gives_the_same_weights_and_another_seed_gives_others(config, tmp_path):
    text = CNN.replace("norm: batch", "norm: batch, dropout: 0.2").replace(
        "transforms: [", "transforms: [{type: random_crop, padding: 1}, "
    )
    first, second = (weights(train(config(text), runs_dir=tmp_path)) for _ in range(2))
    other = weights(train(config(text, "seed=1"), runs_dir=tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if name.endswith("weight"))


@pytest.mark.parametrize(
    "changes",
    [
        ["loss={type: cross_entropy, weight: balanced, label_smoothing: 0.1}"],
        ["training.batch_size=47", "loss={type: cross_entropy, weight: [1, 2, 3, 0, 1, 1, 1, 1, 1, 0]}"],
        ["dataset={type: diabetes, val_fraction: 0.2}", "transforms=[]", "loss=huber", "training.batch_size=7"],
    ],
    ids=["smoothing", "weights of zero", "values"],
)
def test_accumulation_over_pieces_is_the_big_batch(config, tmp_path, changes):
    """Without batch norm and dropout; also where class weights weigh the pieces, and in a ragged last batch."""
    whole, parts = (
        train(config(MLP, *changes, f"training.accumulation_steps={count}"), runs_dir=tmp_path) for count in (1, 3)
    )
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, rtol=1e-5, atol=2e-6)
    losses = [json.loads(result.run.metrics.read_text().splitlines()[-1])["train_loss"] for result in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_batch_norm_and_dropout_work_on_pieces(config, tmp_path):
    """Running statistics are those of the pieces one after the other, and each piece has its own dropout mask."""
    setup = build_setup(config(MLP, "model.norm=batch", "model.dropout=0.5", "training.accumulation_steps=3").config)
    batches = setup.batches("train", training=True)
    state, plan = setup.state(steps_per_epoch=batches.batches_per_epoch), setup.plan()
    norm = next(layer for layer in setup.model.modules() if isinstance(layer, nn.BatchNorm1d))
    dropout = next(layer for layer in setup.model.modules() if isinstance(layer, nn.Dropout))
    seen, masks = [], []
    norm.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].detach()))
    dropout.register_forward_hook(lambda layer, inputs, output: masks.append(output == 0))
    setup.model.train()
    compute_gradients(state, plan, next(iter(batches.epoch(0))))
    assert [len(rows) for rows in seen] == [17, 17, 16]
    expected = torch.zeros(32)
    for rows in seen:
        expected = 0.9 * expected + 0.1 * rows.mean(0)
    torch.testing.assert_close(norm.running_mean, expected)
    assert not torch.equal(masks[0], masks[1])


def test_validation_does_not_depend_on_the_batch_size(config):
    scores = []
    for size in (7, 50, 1000):
        setup = build_setup(config(MLP, f"training.eval_batch_size={size}").config)
        scores.append(score(setup, "val", frontend=Frontend(), stopped=""))
    assert scores[0].keys() == scores[1].keys()
    for name in scores[0]:
        assert scores[0][name] == pytest.approx(scores[2][name], abs=1e-6), name
        assert scores[1][name] == pytest.approx(scores[2][name], abs=1e-6), name


def test_the_epoch_line_divides_sums_once(config, tmp_path):
    """The mean of the epoch weighs the ragged last batch with what it holds."""
    result = train(config(MLP, "optimizer.lr=1e-12", "optimizer.momentum=0.0"), runs_dir=tmp_path)
    records = [json.loads(line) for line in result.run.metrics.read_text().splitlines()]
    steps, epoch = [r["loss"] for r in records if r["type"] == "step"], records[-1]
    setup = build_setup(config(MLP).config)
    at_start = score(setup, "train", frontend=Frontend(), stopped="")
    assert epoch["train_loss"] == pytest.approx(at_start["loss"], abs=1e-5)
    assert epoch["train_accuracy"] == at_start["accuracy"]
    assert epoch["train_loss"] != pytest.approx(sum(steps) / len(steps), abs=1e-5)


def test_early_stopping_ends_the_run_and_keeps_the_best(config, tmp_path):
    overrides = ["training.epochs=50", "training.early_stopping={patience: 2}", "optimizer.lr=1e-12"]
    result = train(config(MLP, *overrides), runs_dir=tmp_path)
    assert (result.outcome, result.epochs_completed, result.best_epoch) == ("early stopping", 3, 1)
    assert "epoch01" in result.best_checkpoint.name


def test_a_non_finite_loss_stops_the_run_before_the_weights_change(config, tmp_path):
    from trainkit.errors import TrainkitError

    loaded = config(MLP, "optimizer.lr=1e30", "training.epochs=3")
    with pytest.raises(TrainkitError, match=r"step \d+: the loss is (nan|inf); learning rate 1e\+30, training samples"):
        train(loaded, runs_dir=tmp_path / "runs")
    for file in tmp_path.glob("runs/*/checkpoints/*.pth"):
        assert all(torch.isfinite(value).all() for value in torch.load(file, weights_only=True)["model"].values())
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["status"].startswith("failed: step ")


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=rmsprop", "training.ema={decay: 0.9}"],
        ["optimizer=adagrad", "training.clip_grad_norm=0.5"],
        ["optimizer=adamw", "training.clip_grad_value=0.1", "training.precision=bf16"],
        ["optimizer={type: lbfgs, lr: 0.5, max_iter: 4}", "training.batch_size=1000", "training.ema={decay: 0.5}"],
        ["scheduler={type: one_cycle}", "training.on_non_finite=skip"],
        ["scheduler={type: reduce_on_plateau, patience: 0}", "loss=nll", "model.output=log_softmax"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_way_of_stepping_learns(config, tmp_path, overrides):
    result = train(config(MLP, *overrides, "training.epochs=4"), runs_dir=tmp_path)
    assert result.metrics["test"]["accuracy"] > 0.5


class FunctionalDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, rows):
        return self.second(F.dropout(torch.relu(self.first(rows)), 0.5, self.training))


def stochastic_depth():
    from torchvision.ops import StochasticDepth

    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), StochasticDepth(0.5, "row"), nn.Linear(16, 3))


def random_slopes():
    return nn.Sequential(nn.Linear(6, 16), nn.RReLU(), nn.Linear(16, 3))


class AttentionDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1, dropout=0.5, batch_first=True)
        self.output = nn.Linear(6, 3)

    def forward(self, rows):
        tokens = rows.unflatten(1, (3, 2))
        return self.output(self.attention(tokens, tokens, tokens)[0].flatten(1))


class States(list):
    """Recorder and checkpointer in one; keeps the saved states."""

    def log(self, record): ...

    def sync(self): ...

    def close(self): ...

    def save(self, state, *, metrics, best):
        self.append(copy.deepcopy(state))


def fit_noisy(model, *, stop_at=None, resume=None):
    """Two epochs of five steps on a copy of the model, or on from a state. Returns the last saved state."""
    draws = np.random.default_rng(0)
    part = Part(draws.normal(size=(40, 6)).astype(np.float32), draws.integers(0, 3, 40))
    model = copy.deepcopy(model)
    state = TrainState(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        schedule=build_schedule("constant", base_lr=0.1, total_steps=10, steps_per_epoch=5),
        best=Best("train_loss", "min"),
    )
    if resume is not None:
        state.load_state_dict(copy.deepcopy(resume))
    plan = Plan(
        seed=1,
        epochs=2,
        loss=build_loss("cross_entropy"),
        new_metrics=lambda: ClassificationMetrics(3),
        forward=model,
    )
    states = States()
    fit(
        state,
        plan,
        train=make_batches(part, np.arange(40), batch_transforms=[], batch_size=8, shuffle=True, seed=1, random=True),
        val=None,
        recorder=states,
        checkpointer=states,
        should_stop=lambda: state.progress.steps_completed == stop_at,
    )
    return states[-1]


@pytest.mark.parametrize("build", [FunctionalDropout, stochastic_depth, random_slopes, AttentionDropout])
def test_a_resumed_run_draws_the_noise_of_the_whole_one_from_any_layer(build):
    """The default generator stands elsewhere each time, as it does in another process."""
    torch.manual_seed(0)
    model = build()
    torch.manual_seed(1)
    whole = fit_noisy(model)["model"]
    torch.manual_seed(2)
    half = fit_noisy(model, stop_at=3)
    assert half["progress"]["batches_completed"] == 3
    torch.manual_seed(3)
    resumed = fit_noisy(model, resume=half)["model"]
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_each_step_draws_other_noise():
    model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.5), nn.Linear(16, 3))
    masks = []
    model[1].register_forward_hook(lambda layer, inputs, output: masks.append(output == 0))
    fit_noisy(model)
    assert len(masks) == 10
    assert not any(torch.equal(masks[i], masks[j]) for i in range(10) for j in range(i))
