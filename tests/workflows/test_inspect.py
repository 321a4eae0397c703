"""The table of layers, from a config and from a checkpoint; where the code is; the command's output."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainkit.cli.app import app
from trainkit.config import load_config
from trainkit.errors import CheckpointError, ConfigError, UserError
from trainkit.workflows.check import check
from trainkit.workflows.inspect import inspect_checkpoint, inspect_config

CONFIGS = Path(__file__).parents[2] / "configs"
LAYERS = """
dataset: digits
model:
  type: sequential
  layers:
    - {type: Conv2d, out_channels: 4, kernel_size: 3}
    - ReLU
    - {type: MaxPool2d, kernel_size: 2}
    - Flatten
    - Linear
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(LAYERS)
    return path


def test_the_table_of_a_config(config: Path) -> None:
    found = inspect_config(load_config(config))
    assert [(row.type, row.input_shape, row.output_shape, row.parameters, row.multiply_adds) for row in found.rows] == [
        ("Conv2d", (1, 8, 8), (4, 6, 6), 4 * 9 + 4, 4 * 6 * 6 * 9),
        ("ReLU", (4, 6, 6), (4, 6, 6), 0, 0),
        ("MaxPool2d", (4, 6, 6), (4, 3, 3), 0, 0),
        ("Flatten", (4, 3, 3), (36,), 0, 0),
        ("Linear", (36,), (10,), 370, 360),
    ]
    assert found.num_parameters == found.num_trainable == 410
    assert found.multiply_adds == 1296 + 360
    assert found.activation_bytes == 4 * (144 + 144 + 36 + 10)
    assert found.rows[0].source is None
    assert found.diagnosis is None


def test_the_groups_of_the_optimizer(config: Path) -> None:
    groups = "optimizer: {type: adamw, no_decay: norm_and_bias, groups: [{modules: ['4'], lr_scale: 10}]}\n"
    config.write_text(LAYERS + groups)
    result = CliRunner().invoke(app, ["inspect", str(config), "--json"])
    assert json.loads(result.stdout)["parameter_groups"] == [
        {"modules": ["0.weight"], "parameters": 36, "frozen": None, "lr_scale": 1.0, "weight_decay": 0.01},
        {"modules": ["0.bias"], "parameters": 4, "frozen": None, "lr_scale": 1.0, "weight_decay": 0.0},
        {"modules": ["4.weight"], "parameters": 360, "frozen": None, "lr_scale": 10.0, "weight_decay": 0.01},
        {"modules": ["4.bias"], "parameters": 10, "frozen": None, "lr_scale": 10.0, "weight_decay": 0.0},
    ]
    shown = CliRunner().invoke(app, ["inspect", str(config)]).stdout.splitlines()
    assert ["4.weight", "360", "no", "10", "0.01"] in [line.split() for line in shown]


def test_until_when_groups_are_frozen(config: Path) -> None:
    config.write_text(LAYERS + "fine_tuning: {freeze: ['0'], unfreeze: [{at: 30st, modules: ['0.bias']}]}\n")
    result = CliRunner().invoke(app, ["inspect", str(config), "--json"])
    frozen = {tuple(group["modules"]): group["frozen"] for group in json.loads(result.stdout)["parameter_groups"]}
    assert frozen == {("0.weight",): "for the whole run", ("0.bias",): "until 30st", ("4",): None}


def test_the_source_is_where_the_class_is(config: Path) -> None:
    row = inspect_config(load_config(config), source=True).rows[0]
    assert row.source is not None
    path, line = row.source.rsplit(":", 1)
    assert Path(path).read_text().splitlines()[int(line) - 1].startswith("class Conv2d")


def test_nothing_is_written(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.parent)
    monkeypatch.setenv("TRAINKIT_CACHE", str(config.parent / "cache"))
    inspect_config(load_config("c.yaml"), batch=True)
    assert [path.name for path in config.parent.iterdir()] == ["c.yaml"]


def test_a_model_that_does_not_fit_is_an_error_with_its_place(config: Path) -> None:
    config.write_text(LAYERS.replace("kernel_size: 3", "kernel_size: 9"))
    with pytest.raises(ConfigError, match=r"c\.yaml:6:7: model\.layers\[0\]: Conv2d has a kernel of 9 x 9"):
        inspect_config(load_config(config))


def test_a_batch_of_data_that_are_not_there(tmp_path: Path) -> None:
    loaded = load_config(CONFIGS / "cifar10_cnn.yaml", overrides=[f"dataset.root={tmp_path}"])
    assert inspect_config(loaded).num_parameters > 100_000
    with pytest.raises(UserError, match=r"cifar10 is not in .* yet: .*a batch needs them"):
        inspect_config(loaded, batch=True)


def test_a_checkpoint_needs_no_data(tiny_run) -> None:
    found = inspect_checkpoint(tiny_run.best_checkpoint)
    assert [row.type for row in found.rows][:2] == ["Flatten", "Linear"]
    assert found.input_shape == (1, 8, 8)
    assert found.name == str(tiny_run.best_checkpoint)


def test_a_batch_through_a_checkpoint(tiny_run) -> None:
    first = inspect_config(load_config(tiny_run.run.resolved_config), batch=True)
    trained = inspect_checkpoint(tiny_run.run.path, batch=True)
    assert first.diagnosis is not None
    assert trained.diagnosis is not None
    assert trained.diagnosis.loss < first.diagnosis.loss  # the weights are those after training
    assert trained.diagnosis.flags == ()


def test_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        inspect_checkpoint(tmp_path / "x.pth")


def test_the_command_prints_a_line_a_layer(config: Path) -> None:
    done = CliRunner().invoke(app, ["inspect", str(config), "--batch", "--source"])
    assert done.exit_code == 0, done.output
    table = done.stdout.split("\n\n")[1].splitlines()
    assert table[0].split()[:5] == ["layer", "type", "input", "output", "parameters"]
    assert len(table) == 1 + 5 + 1
    assert "total" in table[-1]
    assert "410" in table[-1]
    assert "looks healthy" in done.stdout
    assert "torch/nn/modules/conv.py:" in done.stdout


def test_the_command_prints_json(tiny_run) -> None:
    done = CliRunner().invoke(app, ["inspect", str(tiny_run.best_checkpoint), "--json", "--batch"])
    assert done.exit_code == 0, done.output
    messages = json.loads(done.stdout)
    assert messages["parameters"] == sum(layer["parameters"] for layer in messages["layers"])
    assert messages["batch"]["num_samples"] == 64
    assert messages["layers"][1]["activity"]["grad_norm"] > 0


def test_overrides_are_for_configs(tiny_run) -> None:
    done = CliRunner().invoke(app, ["inspect", str(tiny_run.best_checkpoint), "--set", "seed=1"])
    assert done.exit_code == 2
    assert "a checkpoint has its config inside" in done.stderr


@pytest.mark.parametrize("name", ["digits_cnn", "wine_mlp"])
def test_the_memory_is_that_of_check(name: str) -> None:
    loaded = load_config(CONFIGS / f"{name}.yaml", overrides=["training.accumulation_steps=2"])
    inspected, checked = inspect_config(loaded).memory, check(loaded).costs.memory
    assert inspected == replace(checked, free=inspected.free)
    assert inspected.describe().partition(" more; ")[0] == checked.describe().partition(" more; ")[0]
    assert "the libraries take about 250 MB" in inspected.describe()
