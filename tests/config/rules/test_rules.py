"""The rules on what the opened data say, given as plain numbers: no data and no torch."""

import subprocess
import sys
from dataclasses import replace

import pytest

from trainkit.config import load_config
from trainkit.config.rules import check
from trainkit.config.schema import Config

CSV = {"type": "table", "path": "t.csv", "target": "y"}
FOLDER = {"type": "image_folder", "root": "pics"}


def config_of(dataset, **sections) -> Config:
    return Config.model_validate({"dataset": dataset, "model": {"type": "mlp"}, **sections})


@pytest.mark.parametrize(
    ("config", "known", "key"),
    [
        (config_of(CSV, loss="mse"), {"task": "classification", "num_classes": 3}, "loss.type"),
        (config_of(CSV, loss="bce", model={"type": "mlp", "output": "sigmoid"}), {"num_classes": 3}, "loss.type"),
        (config_of(CSV, checkpoint={"monitor": "val_loss"}), {"num_val": 0}, "checkpoint.monitor"),
        (config_of(CSV, checkpoint={"monitor": "val_roc_auc"}), {"val_classes": 1}, "checkpoint.monitor"),
        (config_of(CSV, logging={"metrics": ["val_average_precision"]}), {"val_classes": 1}, "logging.metrics[0]"),
        (config_of(CSV, scheduler={"type": "step", "step_size": "99st"}), {"num_train": 64}, "scheduler.step_size"),
        (config_of(CSV, training={"drop_last": True}), {"num_train": 63}, "training.batch_size"),
        (
            config_of(FOLDER, transforms=[{"type": "random_crop", "size": 8}]),
            {"static_shape": (3, 9, 7)},
            "transforms[0].size",
        ),
    ],
)
def test_a_rule_is_broken_once_the_data_say_so(config: Config, known: dict, key: str) -> None:
    assert check(config) == []
    (violation,) = check(config, dataset=replace(config.dataset.known_info(), **known))
    assert violation.key == key


def test_messages_show_the_line_where_it_is_known() -> None:
    config = config_of(CSV, loss="mse")
    info = replace(config.dataset.known_info(), task="classification", num_classes=3)
    texts = [check(config, where, info)[0].message for where in (None, lambda key: "line 7")]
    assert texts == [
        "mse is for values to predict, and `dataset.target: y` has classes; use cross_entropy",
        "mse is for values to predict, and `dataset.target: y` (line 7) has classes; use cross_entropy",
    ]


def test_a_warm_up_and_a_step_that_fill_the_run_together_are_exact(tmp_path) -> None:
    """In thirds of an epoch: sums of floats would go beyond the run."""
    (tmp_path / "c.yaml").write_text(
        "dataset: iris\nmodel: mlp\ntraining: {epochs: 2, batch_size: 36}\n"
        "scheduler: {type: step, warmup: 1st, step_size: 5st}\n"
    )
    load_config(tmp_path / "c.yaml")


def test_the_rules_need_no_torch() -> None:
    code = "import sys, trainkit.config.rules; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
