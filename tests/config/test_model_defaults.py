"""Defaults that come with a model: they fill what is not written, say so, and change nothing that is."""

from pathlib import Path
from typing import Any

import pytest

from trainkit.config import load_config
from trainkit.config.loading import config_from_dict
from trainkit.config.schema.model_defaults import with_model_defaults
from trainkit.errors import ConfigError

TABULAR = "dataset: wine\nmodel: tabular_mlp\n"


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def load(text: str, *overrides: str) -> Any:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return load_config(path, overrides=overrides)

    return load


def test_a_tabular_mlp_trains_as_its_paper_does(written: Any) -> None:
    loaded = written(TABULAR)
    config = loaded.config
    assert [one.type for one in config.transforms] == ["robust_scale"]
    assert (config.loss.type, config.loss.label_smoothing) == ("auto", 0.1)
    optimizer = config.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.betas, optimizer.weight_decay) == ("adamw", 0.04, [0.9, 0.95], 0.02)
    assert (optimizer.no_decay, optimizer.weight_decay_schedule) == ("norm_and_bias", "flat_cos")
    assert config.model.dropout_schedule == "flat_cos"
    assert (config.scheduler.type, config.scheduler.cycles) == ("coslog", 4)
    training = config.training
    assert (training.epochs, training.batch_size, training.drop_last) == (256, 256, "auto")
    assert str(loaded.origins["training.epochs"]) == "default of tabular_mlp"
    assert str(loaded.origins["optimizer.lr"]) == "default of tabular_mlp"
    assert str(loaded.origins["training.shuffle"]) == "default"


def test_what_is_written_stays(written: Any) -> None:
    loaded = written(TABULAR + "transforms: []\noptimizer: adam\ntraining: {epochs: 3}\n")
    config = loaded.config
    assert config.transforms == []
    assert (config.optimizer.type, config.optimizer.lr) == ("adam", 0.001)
    assert (config.training.epochs, config.training.batch_size) == (3, 256)
    assert str(loaded.origins["training.batch_size"]) == "default of tabular_mlp"
    assert str(loaded.origins["training.epochs"]).endswith("config.yaml:5")


def test_single_values_are_overridden_among_the_models(written: Any) -> None:
    loaded = written(TABULAR, "optimizer.lr=0.01", "optimizer.betas=[0.8,0.9]")
    optimizer = loaded.config.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.betas, optimizer.weight_decay) == ("adamw", 0.01, [0.8, 0.9], 0.02)
    assert str(loaded.origins["optimizer.type"]) == "default of tabular_mlp"
    with pytest.raises(ConfigError, match=r"quantile comes twice, first in `transforms\[0\].type: robust_scale`"):
        written(TABULAR, "transforms+=quantile")


def test_the_model_may_come_from_an_override(written: Any) -> None:
    assert written("dataset: wine\nmodel: mlp\n", "model=tabular_mlp").config.training.epochs == 256


def test_other_models_keep_their_defaults(written: Any) -> None:
    loaded = written("dataset: wine\nmodel: mlp\n")
    assert (loaded.config.optimizer.type, loaded.config.training.epochs) == ("adam", 10)
    assert {str(origin) for origin in loaded.origins.values() if origin.place is None} == {"default"}


def test_a_stored_config_is_taken_as_it_is(written: Any) -> None:
    loaded = written(TABULAR + "transforms: []\noptimizer: sgd\n")
    assert config_from_dict(loaded.resolved(), where="checkpoint") == loaded.config
    again = written(TABULAR).resolved()
    assert with_model_defaults(again)[0] == again
    assert config_from_dict(again, where="checkpoint") == written(TABULAR).config


@pytest.mark.parametrize("data", [None, [], {"model": None}, {"model": {"type": 3}}, {"model": ["tabular_mlp"]}])
def test_nothing_comes_with_what_is_no_model(data: Any) -> None:
    assert with_model_defaults(data) == (data, {})
