"""What ``--set`` and ``--unset`` do; what they refuse is in bad_configs.yaml."""

from pathlib import Path

import pytest

from trainkit.config import Config, load_config

TEXT = """\
dataset: digits
transforms:
  - {type: random_crop, padding: 1}
  - normalize
model: {type: mlp, hidden_sizes: [32, 16]}
optimizer: {type: sgd, lr: 0.1, momentum: 0.9}
training: {epochs: 3, early_stopping: {patience: 2}}
"""


@pytest.fixture
def load(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text(TEXT)

    def load(*overrides: str, unset: tuple[str, ...] = ()) -> Config:
        return load_config(path, overrides=overrides, unset=unset).config

    return load


def test_values_are_read_as_yaml(load) -> None:
    config = load(
        "optimizer.lr=1e-3",
        "training.drop_last=true",
        "name=no",
        "model.hidden_sizes=[1, 2]",
        "training.ema={decay: 0.9}",
    )
    assert config.optimizer.lr == 0.001
    assert config.training.drop_last is True
    assert config.name == "no"
    assert config.model.hidden_sizes == [1, 2]
    assert config.training.ema.decay == 0.9


def test_the_last_one_wins(load) -> None:
    assert load("seed=1", "seed=2").seed == 2


def test_a_choice_is_replaced_as_a_whole(load) -> None:
    assert load("optimizer=adam").optimizer.type == "adam"
    assert load("optimizer={type: sgd, lr: 1.0}").optimizer.momentum == 0.0


def test_the_type_alone_keeps_the_knobs_that_fit(load) -> None:
    optimizer = load("optimizer.type=rmsprop").optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum) == ("rmsprop", 0.1, 0.9)


def test_a_knob_of_a_bare_name_and_of_a_default(load) -> None:
    assert load("dataset.val_fraction=0.3").dataset.val_fraction == 0.3
    assert load("scheduler.warmup=1").scheduler.type == "constant"
    assert load("model.init=kaiming_normal", "model.init.mode=fan_out").model.init.mode == "fan_out"
    assert load("training.on_non_finite=skip", "training.on_non_finite.limit=3").training.on_non_finite.limit == 3


def test_items_of_lists(load) -> None:
    assert load("model.hidden_sizes[1]=7").model.hidden_sizes == [32, 7]
    assert load("transforms[0].padding=2").transforms[0].padding == 2
    config = load("transforms[1].mean=[0.5]", "transforms[1].std=[0.25]")
    assert (config.transforms[1].mean, config.transforms[1].std) == ([0.5], [0.25])
    assert load("transforms[0]=random_horizontal_flip").transforms[0].p == 0.5


def test_appending(load) -> None:
    assert load("model.hidden_sizes+=8").model.hidden_sizes == [32, 16, 8]
    assert [step.type for step in load("transforms+={type: random_erasing, p: 0.1}").transforms][-1] == "random_erasing"


def test_appending_to_a_list_that_is_left_out_keeps_its_default(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("dataset: digits\nmodel: mlp\n")
    assert load_config(path, overrides=["model.hidden_sizes+=8"]).config.model.hidden_sizes == [128, 8]
    assert load_config(path, overrides=["transforms+=normalize"]).config.transforms[0].type == "normalize"


def test_unset(load) -> None:
    assert load(unset=("optimizer.momentum",)).optimizer.momentum == 0.0
    assert load(unset=("optimizer",)).optimizer.type == "adam"
    assert load(unset=("training.early_stopping",)).training.early_stopping is None
    assert [step.type for step in load(unset=("transforms[0]",)).transforms] == ["normalize"]
    assert load(unset=("training.ema", "checkpoint.monitor")).training.ema is None  # left out already: nothing to do


def test_unset_comes_before_set(load) -> None:
    optimizer = load("optimizer.type=adam", unset=("optimizer.momentum",)).optimizer
    assert (optimizer.type, optimizer.lr) == ("adam", 0.1)


def test_an_empty_value_is_null(load) -> None:
    assert load("training.early_stopping=").training.early_stopping is None


def test_aliased_values_are_changed_in_one_place_only(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("dataset: mnist\nmodel: {type: cnn, blocks: [&b {channels: 4}, *b]}\n")
    blocks = load_config(path, overrides=["model.blocks[1].channels=8"]).config.model.blocks
    assert [block.channels for block in blocks] == [4, 8]


def test_an_equals_sign_in_the_value(load) -> None:
    path = load("dataset={type: table, path: 'a=b.csv', target: y}", "transforms=[]").dataset.path
    assert Path(path).name == "a=b.csv"
