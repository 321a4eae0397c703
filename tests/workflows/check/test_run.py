"""The report on a config that can be trained; ``check`` leaves nothing behind."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from trainkit.cli.app import app
from trainkit.config import load_config
from trainkit.errors import ConfigError
from trainkit.workflows.check.probe_data import load_read_only, placeholder_dataset, take_sample
from trainkit.workflows.check.run import check
from trainkit.workflows.train.run import train

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("name", [path.stem for path in sorted(CONFIGS.glob("*.yaml"))])
def test_every_shipped_config_passes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "cache"))
    overrides = []
    if name.startswith("image_folder"):
        pictures(tmp_path / "pictures", {"cat": 12, "dog": 12})
        overrides = ["dataset.root=pictures", "transforms[0].size=36"]
    if name.startswith("finetune"):  # whose weights are not downloaded
        pictures(tmp_path / "pictures", {"cat": 12, "dog": 12})
        overrides = ["dataset.root=pictures"]
    if name == "finetune_efficientnet_lite0":  # whose weights come out of a package
        overrides.append("model.weights=none")
    if name == "table":
        Path("table.csv").write_text("x,y\n" + "".join(f"{row / 7},{'ab'[row % 2]}\n" for row in range(40)))
        overrides = ["dataset.path=table.csv"]
    found = check(load_config(CONFIGS / f"{name}.yaml", overrides=overrides))
    assert found.num_parameters > 0
    assert {path.name for path in tmp_path.iterdir()} <= {"pictures", "table.csv"}


def pictures(root: Path, classes: dict[str, int]) -> None:
    generator = np.random.default_rng(0)
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            image = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / name / f"{index}.png")


def test_the_numbers(tmp_path: Path) -> None:
    found = check(load_config(CONFIGS / "digits_cnn.yaml"), runs_dir=tmp_path)
    assert found.input_shape == (1, 8, 8)
    assert found.output_size == 10
    assert found.num_parameters == 85_258
    assert {name: len(split) for name, split in found.source.splits.items()} == {"train": 1294, "val": 144, "test": 359}
    assert (found.sizes.steps_per_epoch, found.sizes.last_batch, found.total_steps) == (21, 14, 420)
    assert found.choices["monitor"].value == "val_accuracy"
    assert found.choices["device"].reason.startswith("auto: ")
    memory = found.costs.memory
    assert memory.total == memory.weights + memory.gradients + memory.optimizer + memory.activations


def test_a_last_batch_of_one_is_fine_where_it_is_dropped() -> None:
    override = ["training.batch_size=107", "model.norm=batch", "dataset.val_fraction=0.1"]
    with pytest.raises(ConfigError, match="last batch"):
        check(load_config(CONFIGS / "iris_mlp.yaml", overrides=override))
    assert check(load_config(CONFIGS / "iris_mlp.yaml", overrides=[*override, "training.drop_last=true"]))


def test_what_is_not_downloaded_is_imagined(tmp_path: Path) -> None:
    loaded = load_config(CONFIGS / "cifar10_cnn.yaml", overrides=[f"dataset.root={tmp_path / 'none'}"])
    found = check(loaded)
    assert found.input_shape == (3, 32, 32)
    assert {name: len(split) for name, split in found.source.splits.items()} == {
        "train": 45_000,
        "val": 5_000,
        "test": 10_000,
    }
    assert found.notes == (
        f"cifar10 is not in {tmp_path / 'none'} yet: training downloads it; its samples could not be looked at",
    )
    assert not (tmp_path / "none").exists()


def test_a_stand_in_takes_no_memory() -> None:
    stand_in = placeholder_dataset(load_config(CONFIGS / "mnist_cnn.yaml").config)
    assert stand_in is not None
    inputs = stand_in.parts["train"].inputs
    assert isinstance(inputs, np.ndarray)
    assert inputs.shape == (54_000, 1, 28, 28)
    assert inputs.strides[0] == 0


def test_a_table_has_no_stand_in() -> None:
    assert placeholder_dataset(load_config(CONFIGS / "iris_mlp.yaml").config) is None


def test_a_class_that_a_split_lacks_is_noted(tmp_path: Path) -> None:
    rows = "".join(f"{index},{'ab'[index % 2]}\n" for index in range(40)) + "1,rare\n2,rare\n"
    (tmp_path / "t.csv").write_text("x,y\n" + rows)
    (tmp_path / "c.yaml").write_text(f"dataset: {{type: table, path: {tmp_path}/t.csv, target: y}}\nmodel: mlp\n")
    notes = check(load_config(tmp_path / "c.yaml")).notes
    assert any(note.endswith("split has no sample of rare") for note in notes)
    assert "an epoch is one batch: the training split has 31 samples" in notes[-1]


def test_digits_that_are_mirrored_are_noted(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("dataset: digits\nmodel: {type: mlp, hidden_sizes: []}\ntransforms: [random_horizontal_flip]\n")
    said = "random_horizontal_flip: 0, 1, 2 would mean something else in a mirror; leave it out unless"
    assert any(note.startswith(said) for note in check(load_config(config)).notes)


def test_a_few_samples_may_all_have_a_weight_of_0(tmp_path: Path) -> None:
    rows = "".join(f"{index},{'b' if index == 77 else 'a'}\n" for index in range(200)) + "1,b\n2,b\n3,b\n"
    (tmp_path / "t.csv").write_text("x,y\n" + rows)
    text = f"dataset: {{type: table, path: {tmp_path}/t.csv, target: y}}\nmodel: mlp\n"
    (tmp_path / "c.yaml").write_text(
        text + "loss: {type: cross_entropy, weight: [0, 1]}\ntraining: {batch_size: 203}\n"
    )
    check(load_config(tmp_path / "c.yaml"))


def test_a_sample_is_spread_over_the_split(tmp_path: Path) -> None:
    config = load_config(CONFIGS / "digits_cnn.yaml").config
    data = load_read_only(config)
    sample = take_sample(data, config, size=5)
    chosen = data.splits["train"].indices[[0, 323, 646, 969, 1293]]
    np.testing.assert_array_equal(sample.parts["sample"].inputs, data.parts["all"].inputs[chosen])
    np.testing.assert_array_equal(sample.parts["sample"].targets, data.parts["all"].targets[chosen])


def test_a_few_unreadable_images_are_noted_where_they_may_be_skipped(tmp_path: Path) -> None:
    pictures(tmp_path / "p", {"cat": 12, "dog": 12})
    (tmp_path / "p" / "dog" / "0.png").write_bytes(b"no image")
    (tmp_path / "c.yaml").write_text(
        f"dataset: {{type: image_folder, root: {tmp_path}/p, max_bad_files: 1, val_fraction: 0, test_fraction: 0}}\n"
        "model: mlp\n"
    )
    found = check(load_config(tmp_path / "c.yaml"))
    assert "residency" not in found.choices, "only decoding them shows it"
    notes = found.notes
    [skipped] = [note for note in notes if note.startswith("skipped 1 unreadable images of part 'all' (")]
    assert "dog/0.png: not an image" in skipped


@pytest.mark.parametrize("command", [["check"], ["train", "--dry-run"]])
def test_the_commands(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(app, [*command, str(CONFIGS / "iris_mlp.yaml")])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].endswith("iris_mlp.yaml can be trained")
    assert [line.split()[0] for line in lines[1:6]] == ["data", "model", "training", "memory", "disk"]
    assert ": train 96, val 24, test 30 samples;" in lines[1]
    assert "50 epochs x 6 steps = 300" in lines[3]
    assert any("setosa 32/8/10, " in line and line.endswith("(train/val/test)") for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_json(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", str(CONFIGS / "iris_mlp.yaml"), "--json", "--set", "training.epochs=3"])
    printed = json.loads(done.stdout)
    assert printed["training"]["total_steps"] == 18
    assert printed["model"]["parameters"] == 131
    assert printed["data"]["splits"] == {"train": 96, "test": 30, "val": 24}
    assert printed["memory_bytes"]["free"] > printed["memory_bytes"]["total"]
    assert printed["choices"]["device"]["reason"]


def test_without_tensorboard_the_message_comes_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"logging.tensorboard: it needs the tensorboard package"):
        train(load_config(CONFIGS / "digits_cnn.yaml", overrides=["logging.tensorboard=true"]), runs_dir=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_probabilities_of_zero_are_noted() -> None:
    section = {"dataset": "digits", "model": "mlp"}
    flip = {"type": "random_horizontal_flip", "p": 0}
    training = {"mix": {"type": "mixup", "p": 0}}
    notes = check(load_config({**section, "transforms": [flip, "normalize"], "training": training})).notes
    assert "training.mix.p is 0: no batch is mixed" in notes
    assert "transforms[0].p is 0: random_horizontal_flip changes nothing" in notes
    assert not any(
        ".p is 0" in note for note in check(load_config({**section, "transforms": [flip | {"p": 0.1}]})).notes
    )
