"""Epochs on the output of a frozen backbone are those on the samples themselves, wherever a run resumes."""

import shutil
import signal

import pytest
import torch
from engine_runs import Said, differences, frontend, load, train_with_stops
from torch import nn

from trainkit.builders import build_setup, choose_features
from trainkit.data.cache import cache_root, list_entries
from trainkit.errors import ConfigError, Interrupted
from trainkit.models import features_of, head_of
from trainkit.recorders.logs import read_json_lines
from trainkit.system.frontend import Frontend, StopRequest
from trainkit.system.run_folder import newest_run
from trainkit.workflows.check import check
from trainkit.workflows.train.run import train

pytestmark = pytest.mark.usefixtures("fast_runs")

# 7 steps an epoch; the features serve for two of four epochs.
CNN = """
name: tiny
dataset: {type: digits, val_fraction: 0.1, test_fraction: 0.2}
transforms: [{type: normalize, mean: [0.3], std: [0.4]}]
model: {type: cnn, blocks: [{channels: 4, pool: 2}, {channels: 4}], norm: batch, dropout: 0.2, head_dropout: 0.2}
optimizer: {type: adamw, lr: 0.01}
fine_tuning: {freeze: backbone, unfreeze: [{at: 19st, modules: all}]}
training: {epochs: 4, batch_size: 200, precision: fp32}
logging: {every: 1, plots: false}
"""
OFF = "fine_tuning.cache_features=false"
MODELS = {
    "cnn": [],
    "pooled": ["model.global_pool=avg", "model.head_sizes=[8]"],
    "bf16": ["training.precision=bf16"],
    "average and pieces": ["training.ema={decay: 0.9}", "training.accumulation_steps=3"],
    "mean of the weights": ["training.average={type: swa, start: 9st}"],
    "mlp": ["model={type: mlp, hidden_sizes: [16], norm: batch, dropout: 0.3}"],
    "log-probabilities": ["model={type: mlp, hidden_sizes: [16], output: log_softmax}", "loss=nll"],
    "frozen for good": ["fine_tuning.unfreeze=[]", "training.on_non_finite=skip"],
    "values": ["dataset=diabetes", "transforms=[]", "model=mlp", "training.batch_size=60"],
    "a table": ["dataset=iris", "transforms=[standardize]", "model=tabular_mlp", "training.batch_size=20"],
    "no validation": ["dataset.val_fraction=0", "checkpoint.monitor=train_loss"],
}


def epochs_of(folder):
    """The metrics of each epoch."""
    records = read_json_lines(newest_run(folder / "runs").metrics)
    return [
        {key: value for key, value in record.items() if not key.endswith("_seconds") and key not in ("type", "best")}
        for record in records
        if record["type"] == "epoch"
    ]


@pytest.mark.parametrize("name", MODELS)
def test_metrics_are_those_without(tmp_path, name):
    said = Said()
    changes = MODELS[name]
    for folder, more in (("with", []), ("without", [OFF])):
        (tmp_path / folder).mkdir()
        config = load(tmp_path / folder, CNN, *changes, *more)
        train(config, runs_dir=tmp_path / folder / "runs", frontend=frontend(say=said.append))
    assert sum(line.startswith("cache_features: true (auto: ") for line in said) == 1
    assert sum(line.startswith("features of ") for line in said) == 1
    one, other = (epochs_of(tmp_path / folder) for folder in ("with", "without"))
    assert len(one) == 4
    for mine, theirs in zip(one, other, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6 if name != "bf16" else 1e-3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return train_with_stops(load(folder, CNN), folder / "runs")


@pytest.mark.parametrize("stops", [[1], [7], [10], [14], [15], [18, 19, 20], [3, 8, 24]])
def test_a_run_that_resumes_has_the_bits_of_the_whole_one(tmp_path, whole, stops):
    run = train_with_stops(load(tmp_path, CNN), tmp_path / "runs", stops)
    assert differences(whole, run) == []


def test_features_that_are_gone_are_computed_again_with_the_same_bits(tmp_path, whole, monkeypatch):
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "cache"))

    def clear():
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)

    run = train_with_stops(load(tmp_path, CNN), tmp_path / "runs", [3, 9], before=clear)
    assert differences(whole, run) == []


def test_features_where_the_cache_cannot_be_written_have_the_same_bits(tmp_path, whole, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "cache"))
    said = Said()
    run = train(load(tmp_path, CNN), runs_dir=tmp_path / "runs", frontend=frontend(say=said.append)).run
    assert any(line.startswith("note: the features are kept in memory, not cached: ") for line in said)
    assert differences(whole, run) == []


def test_another_run_finds_them_and_other_weights_do_not(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "cache"))

    def features():
        return [entry.key for entry in list_entries(cache_root()) if entry.label.endswith("features")]

    train(load(tmp_path, CNN), runs_dir=tmp_path / "runs", frontend=frontend())
    first = features()
    train(load(tmp_path, CNN, "optimizer.lr=0.1", "training.epochs=3"), runs_dir=tmp_path / "runs", frontend=frontend())
    assert features() == first
    assert len(first) == 1
    train(load(tmp_path, CNN, "seed=1"), runs_dir=tmp_path / "runs", frontend=frontend())
    assert len(features()) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["transforms=[random_horizontal_flip]"], "the inputs of the backbone are others in each epoch"),
        (["fine_tuning.batch_norm=train"], "the statistics of the backbone move"),
        (["fine_tuning.unfreeze=[{at: 6st, modules: all}]"], "something is unfrozen in the first epoch"),
        (["fine_tuning.freeze=[blocks.0]", "fine_tuning.unfreeze=[]"], "blocks.1.conv.weight is not frozen"),
        (["training.mix=mixup"], "the inputs of the backbone are mixed"),
    ],
)  # fmt: skip
def test_why_they_are_not_cached(tmp_path, changes, reason):
    assert check(load(tmp_path, CNN, *changes)).choices["cache_features"].reason == f"auto: {reason}"
    with pytest.raises(ConfigError, match=reason):
        check(load(tmp_path, CNN, *changes, "fine_tuning.cache_features=true"))


class Around(nn.Module):
    """Random before its head, and more after it."""

    def __init__(self, *, before=0.0, factor=1.0, drop_rate=0.0):
        super().__init__()
        self.drop_rate = drop_rate
        self.body, self.fc = nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), nn.Linear(8, 10)
        self.before, self.factor = before, factor

    def forward(self, inputs):
        features = nn.functional.dropout(self.body(inputs), self.before, self.training)
        return self.fc(features) * self.factor


@pytest.mark.parametrize(("model", "cached"), [
    (Around(), True), (Around(before=0.5), False), (Around(before=0.5, drop_rate=0.5), True),
    (Around(drop_rate=0.5), False), (Around(factor=2.0), False)])  # fmt: skip
def test_what_stands_around_the_head_is_seen(tmp_path, model, cached):
    setup = build_setup(load(tmp_path, CNN).config)
    setup = type(setup)(**{**{name: getattr(setup, name) for name in setup.__dataclass_fields__}, "model": model})
    choice = choose_features(setup, steps_per_epoch=7)
    assert (choice.value == "true") is cached
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_dropout_in_a_new_head_is_no_hindrance_in_lower_precision(tmp_path):
    """In bf16 the head alone rounds its dropout otherwise than the whole network does."""
    model = "model={type: torchvision, name: resnet18, weights: none, head: {dropout: 0.2}}"
    changes = [model, "transforms=[normalize]", "training.precision=bf16"]
    setup = build_setup(load(tmp_path, CNN, *changes).config)
    assert choose_features(setup, steps_per_epoch=7).value == "true"


def test_the_head_begins_with_the_dropout_before_it():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 2)).train()
    inputs = torch.randn(3, 4)
    assert list(head_of(model)) == [model[2], model[3]]
    assert torch.equal(features_of(model, inputs, precision="fp32"), model[:2](inputs))


def test_a_head_of_several_modules_is_none():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model.head_prefixes = ("1", "2")
    assert head_of(model) is None


def test_a_stop_while_they_are_computed(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "cache"))
    stop = StopRequest()

    def say(line):
        if line.startswith("features of"):
            stop.signum = signal.SIGTERM

    front = Frontend(say=say, stop=stop)
    with pytest.raises(Interrupted, match="the features are not all computed"):
        train(load(tmp_path, CNN), runs_dir=tmp_path / "runs", frontend=front)
