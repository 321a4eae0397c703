"""Networks of torchvision and timm from a weights file: trained, resumed, scored, predicted with and exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_runs import Said, differences, frontend, train_with_stops
from PIL import Image
from published_networks import SIX
from torchvision import models

from trainkit.api import evaluate, export
from trainkit.checkpoints import load_checkpoint
from trainkit.config import LoadedConfig, load_config
from trainkit.errors import ConfigError
from trainkit.workflows.predict import predict
from trainkit.workflows.train.run import train

pytestmark = pytest.mark.usefixtures("fast_runs", "forked_checks")
CONFIG = """
name: tiny
dataset: {type: image_folder, root: pictures}
transforms: [{type: resize, size: [SIDE, SIDE]}, random_horizontal_flip, normalize]
model: MODEL
optimizer: {type: sgd, lr: 0.01, momentum: 0.9}
training: {epochs: 2, batch_size: 8, precision: fp32}
logging: {every: 1, plots: false}
device: cpu
"""
SMALL = "{type: torchvision, name: mobilenet_v3_small, weights: small.pth, head: {dropout: 0.2, hidden_sizes: []}}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes, and the weights of a network of 1000 classes."""
    root = tmp_path_factory.mktemp("pretrained")
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 4)):
        for channel, name in enumerate(("a", "b")):
            (root / "pictures" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                pixels[..., channel] //= 3
                Image.fromarray(pixels).save(root / "pictures" / split / name / f"{index}.png")
    torch.manual_seed(1)
    torch.save(models.mobilenet_v3_small().state_dict(), root / "small.pth")
    return root


def load(folder: Path, model: str, *overrides: str, side: int = 40) -> LoadedConfig:
    path = folder / "config.yaml"
    path.write_text(CONFIG.replace("MODEL", model).replace("SIDE", str(side)))
    return load_config(path, overrides=overrides)


def test_resumes_bit_for_bit_without_the_file(folder, tmp_path):
    """Stopped after the third of six steps; the weights file is gone then."""
    whole = train_with_stops(load(folder, SMALL), tmp_path / "whole")
    moved = folder / "moved.pth"

    def move() -> None:
        if any((tmp_path / "stopped").glob("*/checkpoints/*.pth")):
            (folder / "small.pth").rename(moved)

    try:
        stopped = train_with_stops(load(folder, SMALL), tmp_path / "stopped", [3], before=move)
    finally:
        if moved.exists():
            moved.rename(folder / "small.pth")
    assert differences(whole, stopped) == []


@pytest.mark.slow
def test_says_what_was_left_out_and_answers_everywhere(folder, tmp_path):
    said = Said()
    result = train(load(folder, SMALL), runs_dir=tmp_path, frontend=frontend(say=said.append))
    expected = f"weights: {folder / 'small.pth'} (as asked for; the head is new, without classifier.3.weight, "
    assert f"{expected}classifier.3.bias of the file)" in said
    scores = evaluate(result.best_checkpoint)
    assert scores.num_samples == 8
    found = list(predict(result.best_checkpoint, [str(folder / "pictures/test")]))
    assert [one.error for one in found] == [None] * 8
    bundle = export(result.best_checkpoint, formats=("torchscript", "safetensors"), output=tmp_path / "bundle")
    assert [path.name for path in bundle.programs] == ["model.pt", "model.safetensors"]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (SMALL.replace("mobilenet_v3_small", "mobilenet_v3_large"), "small.pth does not fit MobileNetV3"),
        (SMALL.replace("small.pth", "gone.pth"), "gone.pth: no such file"),
        (SMALL.replace("{dropout: 0.2, hidden_sizes: []}", "keep"), "the layer that is kept has 1000 classes"),
    ],
)
def test_what_does_not_fit_writes_nothing(folder, tmp_path, model, words):
    with pytest.raises(ConfigError, match=words):
        train(load(folder, model), runs_dir=tmp_path / "runs", frontend=frontend())
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_gray_pictures_become_three_equal_channels(folder, tmp_path):
    """The answers of a network on gray pictures are those on color pictures with the same value in each channel."""
    for source in sorted((folder / "pictures").rglob("*.png")):
        for kind in ("gray", "equal"):
            target = folder / kind / source.relative_to(folder / "pictures")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(source).convert("L").convert("L" if kind == "gray" else "RGB").save(target)
    runs = {}
    for kind in ("gray", "equal"):
        changes = (f"dataset.root={folder / kind}", "training.epochs=1")
        runs[kind] = train(load(folder, SMALL, *changes), runs_dir=tmp_path / kind, frontend=frontend())
    gray, equal = (load_checkpoint(runs[kind].best_checkpoint) for kind in ("gray", "equal"))
    assert (gray["preprocessing"]["channels"], gray["preprocessing"]["input_shape"]) == (1, [3, 40, 40])
    for name, tensor in equal["model"].items():
        assert torch.equal(gray["model"][name], tensor), name
    pictures = [str(folder / "gray/test")]
    answers = [[one.top for one in predict(runs[kind].best_checkpoint, pictures)] for kind in ("gray", "equal")]
    assert answers[0] == answers[1]
    assert evaluate(runs["gray"].best_checkpoint).metrics == evaluate(runs["equal"].best_checkpoint).metrics
    other = evaluate(runs["gray"].best_checkpoint, data=folder / "pictures/test")
    assert other.num_samples == 8
    bundle = export(runs["gray"].best_checkpoint, formats=("torchscript", "pt2"), output=tmp_path / "bundle")
    from_bundle = [one.top for one in predict(bundle.bundle, pictures)]
    assert [dict(top) for top in from_bundle] == [pytest.approx(dict(top), abs=1e-6) for top in answers[0]]


@pytest.mark.slow
@pytest.mark.parametrize("name", SIX)
def test_the_six_resume_bit_for_bit(folder, tmp_path, name):
    """Stopped between its two steps. Dropout and stochastic depth draw in both."""
    model = f"{{type: torchvision, name: {name}, weights: none, head: {{dropout: 0.2}}}}"
    changes = ("training.epochs=1", "training.batch_size=9", "training.precision=auto")
    runs = [
        train_with_stops(load(folder, model, *changes, side=64), tmp_path / str(len(stops)), stops)
        for stops in ([], [1])
    ]
    assert differences(*runs) == []


@pytest.mark.slow
def test_timm_trains_and_resumes(folder, tmp_path):
    pytest.importorskip("timm")
    model = "{type: timm, name: resnet10t, weights: none, head: {dropout: 0.2}}"
    runs = [
        train_with_stops(load(folder, model, "training.epochs=1"), tmp_path / str(len(stops)), stops)
        for stops in ([], [1])
    ]
    assert differences(*runs) == []


def test_timm_that_is_not_installed(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install timm"):
        load_config({"dataset": {"type": "image_folder", "root": "x"}, "model": {"type": "timm", "name": "resnet18"}})
