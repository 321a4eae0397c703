"""Scoring checkpoints: the numbers of the training, for any batch size, on their data or on others."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from trainkit.api import evaluate
from trainkit.builders import open_trained
from trainkit.checkpoints.loading import load_checkpoint
from trainkit.config import load_config
from trainkit.errors import CheckpointError, DataError, Interrupted, TrainkitError, UserError
from trainkit.system import durable
from trainkit.system.frontend import Frontend, StopRequest
from trainkit.workflows.evaluate import run as scoring
from trainkit.workflows.evaluate.run import evaluation_folder, write_evaluation
from trainkit.workflows.train.run import train


def train_config(folder, text):
    path = folder / "config.yaml"
    path.write_text(text)
    return train(load_config(path), runs_dir=folder / "runs")


def edited(checkpoint, folder, edit):
    """A copy of a checkpoint with changes; not in a run."""
    state = load_checkpoint(checkpoint)
    edit(state)
    path = folder / "edited.pth"
    torch.save(state, path)
    return path


def write_images(folder, classes, *, size=8, count=6, seed=0):
    """One color a class, with noise."""
    rng = np.random.default_rng(seed)
    for name, gray in classes.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.clip(gray + rng.integers(-20, 20, (size, size)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def image_run(tmp_path_factory):
    """A run on three classes of gray images in a folder."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "data", {"bright": 220, "dark": 30, "middle": 120}, count=20)
    return train_config(
        folder,
        f"""
dataset: {{type: image_folder, root: {folder / "data"}}}
transforms: [normalize]
model: {{type: mlp, hidden_sizes: [16]}}
optimizer: {{type: adam, lr: 0.01}}
training: {{epochs: 20, batch_size: 16}}
""",
    )


@pytest.fixture(scope="module")
def table_run(tmp_path_factory):
    """A run on a CSV file with a category and text labels."""
    folder = tmp_path_factory.mktemp("table")
    write_table(folder / "train.csv", seed=0)
    return train_config(
        folder,
        f"""
dataset: {{type: table, path: {folder / "train.csv"}, target: fruit}}
transforms: [standardize]
model: {{type: mlp, hidden_sizes: [16]}}
optimizer: {{type: adam, lr: 0.01}}
training: {{epochs: 20, batch_size: 16}}
""",
    )


def write_table(path, *, seed, fruits=("apple", "pear"), rows=120):
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["weight", "shop", "fruit"])
        for _ in range(rows):
            kind = int(rng.integers(len(fruits)))
            writer.writerow([f"{rng.normal(100 + 30 * kind, 10):.2f}", rng.choice(["east", "west"]), fruits[kind]])
    return path


@pytest.mark.parametrize(
    ("loss", "knob"), [("cross_entropy", "weight"), ("bce_with_logits", "pos_weight")], ids=["weight", "pos_weight"]
)
def test_balanced_weights_are_those_of_the_training_not_of_the_scored_data(tmp_path, loss, knob):
    """Three bright images to one dark one while training, one to three afterwards."""
    write_images(tmp_path / "data" / "train", {"bright": 220}, count=15)
    write_images(tmp_path / "data" / "train", {"dark": 30}, count=5)
    for part in ("val", "other"):
        folder = tmp_path / "data" / part if part == "val" else tmp_path / part
        write_images(folder, {"bright": 150}, count=2)
        write_images(folder, {"dark": 110}, count=6)
    run = train_config(
        tmp_path,
        f"""
dataset: {{type: image_folder, root: {tmp_path / "data"}, test_fraction: 0.0}}
model: {{type: mlp, hidden_sizes: []}}
loss: {{type: {loss}, {knob}: balanced}}
training: {{epochs: 2, batch_size: 4}}
""",
    )
    assert load_checkpoint(run.best_checkpoint)["class_counts"] == [15, 5]
    on_other_data = evaluate(run.best_checkpoint, data=tmp_path / "other")
    assert on_other_data.metrics["loss"] == pytest.approx(run.metrics["val"]["loss"], rel=1e-6)
    without = edited(run.best_checkpoint, tmp_path, lambda state: state.pop("class_counts"))
    with pytest.raises(
        CheckpointError, match=rf"edited.pth: does not say how many .* loss.{knob}: balanced is made of"
    ):
        evaluate(without)


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_numbers_are_those_of_the_end_of_training(tiny_run, split):
    result = evaluate(tiny_run.best_checkpoint, split=split)
    found = {name: result.metrics[name] for name in tiny_run.metrics[split]}
    assert found == tiny_run.metrics[split]
    assert result.epoch == tiny_run.best_epoch


def test_the_newest_run_and_its_test_split_are_taken_without_arguments(tiny_run):
    messages = []
    result = evaluate(runs_dir=tiny_run.run.path.parent, log=messages.append)
    assert (result.checkpoint, result.split) == (tiny_run.best_checkpoint, "test")
    assert any(str(tiny_run.best_checkpoint) in line for line in messages)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing(tiny_run, tmp_path, batch_size):
    def edit(state):
        state["config"]["training"]["eval_batch_size"] = batch_size

    expected = evaluate(tiny_run.best_checkpoint)
    result = evaluate(edited(tiny_run.best_checkpoint, tmp_path, edit))
    assert result.metrics == pytest.approx(expected.metrics, rel=1e-6)
    assert result.report.confusion.tolist() == expected.report.confusion.tolist()
    assert [m.position for m in result.report.mistakes] == [m.position for m in expected.report.mistakes]


def test_a_run_in_bf16_is_scored_and_reported(tmp_path):
    """Its last layer computes in fp32, so that the model is not called as a whole."""
    result = train_config(
        tmp_path,
        """
dataset: digits
transforms: [{type: normalize, mean: [0.3], std: [0.4]}]
model: {type: cnn, blocks: [{channels: 4, pool: 2}], norm: batch}
training: {epochs: 1, precision: bf16}
""",
    )
    assert result.report is not None
    found = evaluate(result.best_checkpoint).metrics
    assert {name: found[name] for name in result.metrics["test"]} == result.metrics["test"]


def test_files_go_into_the_run(tiny_run):
    result = evaluate(tiny_run.best_checkpoint)
    folder = evaluation_folder(result)
    assert folder == tiny_run.run.path / "evals" / f"test-{tiny_run.best_checkpoint.stem}"
    files = write_evaluation(result, folder)
    assert [path.name for path in files] == ["eval.json", "confusion.png", "reliability.png", "wrong_samples.png"]
    written = json.loads((folder / "eval.json").read_text())
    assert written["metrics"] == result.metrics
    assert written["plots"] == ["confusion.png", "reliability.png", "wrong_samples.png"]
    assert np.sum(written["confusion"]) == written["num_samples"] == result.num_samples
    assert written["mistakes"][0]["sample"].startswith("all[")
    assert durable.finite_or_none(result.as_json()) == {k: v for k, v in written.items() if k != "plots"}


def test_a_checkpoint_without_a_run_has_no_folder_of_its_own(tiny_run, tmp_path):
    shutil.copy(tiny_run.best_checkpoint, tmp_path / "copy.pth")
    result = evaluate(tmp_path / "copy.pth")
    assert evaluation_folder(result) is None
    files = write_evaluation(result, tmp_path / "here", plots=False)
    assert [path.name for path in files] == ["eval.json"]


def test_averaged_weights_are_scored_where_there_are_any(tiny_run, tmp_path):
    def edit(state):
        state["ema"] = {"model": state["model"], "num_updates": 1}
        state["model"] = {name: torch.zeros_like(value) for name, value in state["model"].items()}

    assert (
        evaluate(edited(tiny_run.best_checkpoint, tmp_path, edit)).metrics == evaluate(tiny_run.best_checkpoint).metrics
    )


def test_a_split_that_is_not_there(image_run, tiny_run):
    with pytest.raises(UserError, match=r"--split val: .* has the splits train, test; take one of these"):
        evaluate(image_run.best_checkpoint, split="val", data=split_copy(image_run))


def split_copy(run):
    """The run's images as train/ and test/."""
    root = run.run.path.parents[1] / "data"
    target = root.parent / "split"
    if not target.exists():
        for split in ("train", "test"):
            shutil.copytree(root, target / split)
    return target


def test_changed_data_are_named(image_run, tmp_path):
    def edit(state):
        state["data_fingerprint"]["parts"]["all"]["samples"] = 61

    messages = []
    result = evaluate(edited(image_run.best_checkpoint, tmp_path, edit), log=messages.append)
    assert result.data_changes == ["part 'all': 61 samples then, 60 now"]
    assert "warning: the data are not those of the training: part 'all': 61 samples then, 60 now" in messages


def test_mistakes_name_their_files_and_show_their_pictures(image_run, tmp_path):
    write_images(tmp_path / "other", {"bright": 30, "dark": 220})
    result = evaluate(image_run.best_checkpoint, data=tmp_path / "other")
    assert result.report.num_mistakes == 12
    for mistake, name, image in zip(result.report.mistakes, result.sample_names, result.wrong_images, strict=True):
        assert f"/{mistake.true}/" in name
        assert np.array_equal(image[0], np.asarray(Image.open(name)))


def test_other_images_are_aligned_by_name(image_run, tmp_path):
    # Alphabetically "dark" comes second among three, first among these two.
    write_images(tmp_path / "other", {"dark": 30, "middle": 120})
    messages = []
    result = evaluate(image_run.best_checkpoint, data=tmp_path / "other", log=messages.append)
    assert result.metrics["accuracy"] == 1.0
    assert [row.support for row in result.report.per_class] == [0, 6, 6]
    assert (result.split, result.data, result.num_samples) == ("data", str(tmp_path / "other"), 12)
    assert "note: no samples of 'bright'; labels go by name" in messages
    assert evaluation_folder(result) == image_run.run.path / "evals" / f"data-other-{image_run.best_checkpoint.stem}"


def test_other_images_with_their_own_splits(image_run):
    result = evaluate(image_run.best_checkpoint, data=split_copy(image_run))
    assert (result.split, result.num_samples) == ("test", 60)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"dark": 30, "night": 5}, r"it does not know 'night', and it knows 'bright', 'middle', which"),
        ({"bright": 220, "dark": 30, "middle": 120, "dim": 60}, r"it does not know 'dim'; rename"),
    ],
)
def test_other_classes_are_refused_with_the_difference(image_run, tmp_path, classes, message):
    write_images(tmp_path / "other", classes)
    with pytest.raises(DataError, match=message):
        evaluate(image_run.best_checkpoint, data=tmp_path / "other")


def test_images_of_another_size(image_run, tmp_path):
    write_images(tmp_path / "other", {"dark": 30, "middle": 120}, size=9)
    with pytest.raises(DataError, match="9 x 9 with 1 channel after the transforms, and the model takes 8 x 8"):
        evaluate(image_run.best_checkpoint, data=tmp_path / "other")


def test_images_smaller_than_the_crop_of_training(tmp_path):
    write_images(tmp_path / "data", {"bright": 220, "dark": 30})
    write_images(tmp_path / "small", {"bright": 220, "dark": 30}, size=5)
    run = train_config(
        tmp_path,
        f"""
dataset: {{type: image_folder, root: {tmp_path / "data"}, val_fraction: 0.2}}
transforms: [{{type: random_crop, size: 6}}]
model: mlp
training: {{epochs: 1}}
""",
    )
    with pytest.raises(UserError, match=r"transforms\[0\].size: the crop is larger than the padded image of 5 x 5"):
        evaluate(run.best_checkpoint, data=tmp_path / "small")


def test_another_table(table_run, tmp_path):
    result = evaluate(table_run.best_checkpoint, data=write_table(tmp_path / "other.csv", seed=1))
    assert result.num_samples == 120
    assert result.metrics["accuracy"] > 0.7


def test_data_of_the_training_are_no_other_data(table_run, image_run, tmp_path, monkeypatch):
    def warnings(run, data):
        messages = []
        evaluate(run.best_checkpoint, data=data, log=messages.append)
        return [line for line in messages if line.startswith("warning: the model has learned from --data ")]

    folder = table_run.run.path.parents[1]
    monkeypatch.chdir(folder)
    assert warnings(table_run, "train.csv")
    assert not warnings(table_run, shutil.copy(folder / "train.csv", tmp_path / "other.csv"))
    assert warnings(image_run, image_run.run.path.parents[1] / "data")


def test_a_table_with_other_labels(table_run, tmp_path):
    path = write_table(tmp_path / "other.csv", seed=1, fruits=("apple", "plum"))
    with pytest.raises(DataError, match=r"other.csv:\d+: the label 'plum' is not one of the training's"):
        evaluate(table_run.best_checkpoint, data=path)


def test_labels_of_a_table_may_be_in_another_unicode_form(tmp_path):
    write_table(tmp_path / "train.csv", seed=0, fruits=("p\u00eache", "pear"))
    config = f"dataset: {{type: table, path: {tmp_path}/train.csv, target: fruit}}\nmodel: mlp\n"
    run = train_config(tmp_path, config + "training: {epochs: 1}\n")
    other = write_table(tmp_path / "other.csv", seed=1, fruits=("pe\u0302che", "pear"))
    assert evaluate(run.best_checkpoint, data=other).num_samples == 120


def test_classes_that_the_scored_split_lacks_are_noted(image_run, tmp_path):
    write_images(tmp_path / "other" / "Training", {"bright": 220, "dark": 30, "middle": 120})
    write_images(tmp_path / "other" / "Testing", {"dark": 30})
    messages = []
    result = evaluate(image_run.best_checkpoint, data=tmp_path / "other", log=messages.append)
    assert (result.split, result.num_samples, result.metrics["accuracy"]) == ("test", 6, 1.0)
    assert "note: no samples of 'bright', 'middle'; labels go by name" in messages


def test_a_class_that_only_the_test_split_has_is_scored(image_run, tmp_path):
    write_images(tmp_path / "other" / "train", {"bright": 220})
    write_images(tmp_path / "other" / "test", {"dark": 30, "middle": 120})
    assert evaluate(image_run.best_checkpoint, data=tmp_path / "other").metrics["accuracy"] == 1.0


def test_a_table_with_gaps_and_new_values(table_run, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("weight,shop,fruit\n100,east,apple\nheavy,north,pear\n,NA,pear\n70,west,\n")
    messages = []
    result = evaluate(table_run.best_checkpoint, data=path, log=messages.append)
    assert result.num_samples == 3, "the row without a target is left out"
    [left_out] = [message for message in messages if "1 row without a target is left out" in message]
    assert "if NA, None or the like is a class, dataset.missing_values" in left_out
    assert "note: missing cells are filled in: weight 1, shop 1" in messages
    assert "note: column 'shop': 1 cell with values that the training did not have: 'north'" in messages


@pytest.mark.parametrize(
    ("run", "data", "message"),
    [
        ("image_run", "missing", "does not exist; the checkpoint is for images: give a folder"),
        ("table_run", "missing", "does not exist; give the path of a table"),
        ("table_run", ".", "is a folder without tables; give the path of a table"),
    ],
)
def test_data_of_another_kind(request, tmp_path, run, data, message):
    checkpoint = request.getfixturevalue(run).best_checkpoint
    with pytest.raises(UserError, match=message):
        evaluate(checkpoint, data=tmp_path / data)


def test_regression(tmp_path):
    run = train_config(
        tmp_path,
        """
dataset: {type: synthetic, problem: {type: linear_regression, num_targets: 2}, num_samples: 300}
model: {type: mlp, hidden_sizes: [8]}
optimizer: {type: adam, lr: 0.01}
training: {epochs: 2, batch_size: 32}
""",
    )
    result = evaluate(run.best_checkpoint)
    assert {name: result.metrics[name] for name in run.metrics["test"]} == run.metrics["test"]
    files = write_evaluation(result, tmp_path / "out")
    assert [path.name for path in files] == ["eval.json", "residuals.png"]
    written = json.loads(files[0].read_text())
    assert len(written["per_target"]) == 2
    assert written["largest_errors"][0]["sample"].startswith("all[")
    interval = written["intervals"]["r2"]
    assert interval["low"] < written["metrics"]["r2"] < interval["high"]


def test_answers_that_are_not_numbers(tiny_run, tmp_path):
    def edit(state):
        # Finite weights that overflow.
        state["model"] = {name: torch.full_like(value, 3e38) for name, value in state["model"].items()}

    with pytest.raises(TrainkitError, match=r"answers with NaN or infinity to .* of 359 samples, first to"):
        evaluate(edited(tiny_run.best_checkpoint, tmp_path, edit))


def test_a_stop_is_heard(tiny_run):
    stop = StopRequest()
    stop.signum = 15
    with pytest.raises(Interrupted, match="stopped by SIGTERM: nothing was written") as error:
        scoring.evaluate(open_trained(tiny_run.best_checkpoint), frontend=Frontend(stop=stop))
    assert error.value.exit_code == 143


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError):
        evaluate(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        evaluate(tmp_path)


def test_a_folder_that_cannot_be_written(tiny_run, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(durable.WriteError):
        write_evaluation(evaluate(tiny_run.best_checkpoint), tmp_path / "taken" / "evals")
