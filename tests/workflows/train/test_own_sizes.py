"""Training on pictures of their own sizes: resumed bit by bit, and scored, predicted and exported as it evaluates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_runs import Said, differences, train_with_stops
from no_room import leave_no_room_for_images
from PIL import Image

from trainkit.api import evaluate, export
from trainkit.config import LoadedConfig, load_config
from trainkit.errors import ConfigError, UserError
from trainkit.system.frontend import Frontend
from trainkit.workflows.check import check
from trainkit.workflows.predict import predict
from trainkit.workflows.preview import preview
from trainkit.workflows.train.run import TrainResult, train

pytestmark = pytest.mark.usefixtures("fast_runs", "forked_checks")
CONFIG = """
name: tiny
dataset: {type: image_folder, root: photos, val_fraction: 0.2, test_fraction: 0.2}
transforms: [{type: random_resized_crop, size: [16, 12], scale: [0.4, 1.0]}, random_horizontal_flip, normalize]
model: {type: cnn, blocks: [{channels: 4, pool: 2}], norm: batch, dropout: 0.2, global_pool: avg}
optimizer: {type: adam, lr: 0.02}
training: {epochs: 2, batch_size: 5, precision: fp32}
logging: {every: 1, plots: false}
export: {torchscript: false}
device: cpu
"""
FLIP_FIRST = "[random_horizontal_flip, {type: random_resized_crop, size: 16}]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(30):
        name = "ab"[index % 2]
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        pixels = np.clip(rng.normal(60 if name == "a" else 200, 30, (*rng.integers(14, 50, 2), 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{index}.png")
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def load(folder: Path, *overrides: str) -> LoadedConfig:
    return load_config(folder / "config.yaml", overrides=overrides)


def trained(folder: Path, *overrides: str) -> TrainResult:
    return train(load(folder, *overrides), runs_dir=folder / "runs")


@pytest.mark.parametrize("no_room", [False, True])
def test_a_run_that_is_stopped_in_an_epoch_goes_on_bit_by_bit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, no_room: bool
) -> None:
    """Also where the images are decoded in every epoch: then the bits are those of the cache too."""
    statistics = "transforms[2]={type: normalize, mean: [0.5, 0.5, 0.5], std: [0.3, 0.3, 0.3]}"
    whole = train_with_stops(load(folder, statistics), folder / "whole")
    if no_room:
        monkeypatch.setenv("TRAINKIT_CACHE", str(folder / "another-cache"))
        leave_no_room_for_images(monkeypatch)
    run = train_with_stops(load(folder, statistics), folder / "runs", [2])
    assert differences(whole, run) == []


def test_scores_and_answers_are_those_of_the_whole_pictures(folder: Path) -> None:
    result = trained(folder, "training.epochs=8", "dataset.cache_size=14")
    assert result.metrics["test"]["accuracy"] == 1
    again = evaluate(result.best_checkpoint, split="test").metrics
    assert again["loss"] == pytest.approx(result.metrics["test"]["loss"], abs=1e-6)
    files = sorted((folder / "photos").rglob("*.png"))
    answers = predict(result.best_checkpoint, files, device="cpu")
    right = [answer.label == path.parent.name for answer, path in zip(answers, files, strict=True)]
    everything = evaluate(result.best_checkpoint, data=folder / "photos").metrics
    assert everything["accuracy"] == pytest.approx(np.mean(right))
    train_split = evaluate(result.best_checkpoint, split="train").metrics
    shares = {"train": 19, "val": 5, "test": 6}
    losses = {"train": train_split["loss"], "test": again["loss"]}
    losses["val"] = evaluate(result.best_checkpoint, split="val").metrics["loss"]
    total = sum(shares[name] * losses[name] for name in shares) / 30
    assert total == pytest.approx(everything["loss"], abs=1e-5)


@pytest.mark.slow
def test_a_bundle_answers_as_predict(folder: Path) -> None:
    result = trained(folder)
    bundle = export(result.best_checkpoint, formats=("torchscript",), output=folder / "bundle").bundle
    files = sorted((folder / "photos").rglob("*.png"))
    expected = [answer.probability for answer in predict(result.best_checkpoint, files, device="cpu")]
    assert [answer.probability for answer in predict(bundle / "model.pt", files)] == pytest.approx(expected, abs=1e-5)


def test_check_says_what_is_chosen_and_takes_different_sizes(folder: Path) -> None:
    report = check(load(folder), runs_dir=folder / "runs")
    assert report.choices["eval_resize"].value == "shorter side to 18, then 16 x 12 pixels of the center"
    assert report.choices["cache_size"].value == "at most 30 x 30 pixels"
    [note] = [note for note in report.notes if "in their own sizes" in note]
    assert note.startswith("the training images will take about ")
    assert note.endswith("pixels on average by 19 headers; dataset.cache_size makes it less")
    large = check(load(folder, "transforms=[{type: random_resized_crop, size: 64}]"), runs_dir=folder / "runs").notes
    assert any("by 19 headers; crops are enlarged to 64 x 64; dataset.cache_size" in note for note in large)
    asked = check(load(folder, "dataset.cache_size=none"), runs_dir=folder / "runs").choices["cache_size"]
    assert (asked.value, asked.reason) == ("none", "as asked for")


def test_a_crop_behind_another_random_transform_needs_one_size(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"different sizes.*make \{type: random_resized_crop, size: \d+\} the"):
        check(load(folder, f"transforms={FLIP_FIRST}"), runs_dir=folder / "runs")
    result = trained(folder, "transforms=[{type: resize, size: [20, 18]}, " + FLIP_FIRST[1:])
    assert result.metrics["test"]["accuracy"] > 0


def test_they_are_not_kept_on_a_device(folder: Path) -> None:
    with pytest.raises(UserError, match="images of their own sizes are cropped in host memory, got device"):
        trained(folder, "training.residency=device")


def test_a_preview_shows_whole_pictures_and_crops(folder: Path) -> None:
    output = preview(load(folder), folder / "preview.png", num_images=4)
    assert Image.open(output).size[0] > 300


def test_images_that_are_decoded_in_every_epoch_are_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_no_room_for_images(monkeypatch)
    said = Said()
    with pytest.raises(UserError, match="auto needs the images in memory or in the cache"):
        train(load(folder), runs_dir=folder / "runs", frontend=Frontend(say=said.append))
    assert not list((folder / "runs").glob("*"))
