"""A config given as a dict: the same values, mistakes and paths as those of a file."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from trainkit.config import load_config
from trainkit.config.text import to_yaml
from trainkit.errors import ConfigError, UserError

CONFIG = {"dataset": "iris", "model": {"type": "mlp", "hidden_sizes": [4, 3]}}


def test_a_dict_is_the_config_that_its_yaml_is(tmp_path):
    data = {**CONFIG, "optimizer": {"type": "sgd", "lr": 0.1}, "training": {"early_stopping": {"patience": 2}}}
    (tmp_path / "a.yaml").write_text(to_yaml(data))
    from_dict, from_file = load_config(data), load_config(tmp_path / "a.yaml")
    assert from_dict.resolved() == {**from_file.resolved(), "name": "iris_mlp"}
    assert from_dict.text == from_file.text
    assert (str(from_dict.origins["optimizer.lr"]), str(from_dict.origins["seed"])) == ("<dict>", "default")
    assert load_config({**data, "name": "mine"}, overrides=["seed=3"], unset=["optimizer"]).config.seed == 3


def test_values_as_programs_have_them():
    hidden = [(4, 3), range(4, 2, -1), np.array([4, 3]), torch.tensor([4, 3]), [np.int64(4), 3]]
    for sizes in hidden:
        assert (
            load_config({**CONFIG, "model": {"type": "mlp", "hidden_sizes": sizes}}).config
            == load_config(CONFIG).config
        )
    data = {**CONFIG, "optimizer": {"type": "sgd", "lr": np.float32(0.5)}, "training": {"early_stopping": None}}
    assert load_config(data).config.optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"dataset": "iris", "model": "mlp", "optimizer": {"type": "sgd", "lr": -1, "momentun": 0.9}},
            "<dict>: optimizer.lr: expected a number above 0, got -1; the default is 0.001\n"
            "<dict>: optimizer.momentun: unknown key in optimizer of type sgd; did you mean momentum?",
        ),
        (
            {**CONFIG, "loss": "mse"},
            "<dict>: loss.type: mse is for values to predict, and `dataset.type: iris` (<dict>) has classes; use "
            "cross_entropy",
        ),
        (
            {**CONFIG, 3: 4, "device": torch.device("cpu")},
            "<dict>: expected text as a key, got 3\n"
            "<dict>: device: expected text, a number, true or false, None, a list or a dict, got device 'cpu'",
        ),
        ({"extends": "no.yaml"}, "<dict>: extends: there is no such file, got 'no.yaml'; it is looked for in ."),
    ],
)
def test_mistakes_are_located_by_their_keys(data, message):
    with pytest.raises(ConfigError) as error:
        load_config(data)
    assert str(error.value) == message


def test_a_dict_inside_itself_is_a_mistake():
    data: dict = {}
    data["dataset"] = data
    with pytest.raises(ConfigError, match="<dict>: dataset: nested deeper than 32 levels"):
        load_config(data)


def test_paths_are_relative_to_the_current_folder_or_to_config_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {"dataset": {"type": "table", "path": Path("a.csv"), "target": "y"}, "model": "mlp"}
    assert load_config(data).config.dataset.path == str(tmp_path / "a.csv")
    assert load_config(data, config_dir="data").config.dataset.path == os.path.join(tmp_path, "data", "a.csv")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "base.yaml").write_text(to_yaml(CONFIG))
    assert load_config({"extends": "base.yaml"}, config_dir=tmp_path / "data").config == load_config(
        CONFIG
    ).config.model_copy(update={"name": "iris_mlp"})
    with pytest.raises(UserError, match="config_dir is for a config given as a dict"):
        load_config("data/base.yaml", config_dir="data")
