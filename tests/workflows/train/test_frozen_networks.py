"""Published networks with a frozen backbone: nothing of it moves, and a run resumes bit for bit, on features or not."""

import numpy as np
import pytest
import torch
from engine_runs import differences, load, train_with_stops
from PIL import Image

from trainkit.builders import build_setup
from trainkit.checkpoints import load_checkpoint
from trainkit.checkpoints.folder import CheckpointFolder
from trainkit.recorders.logs import read_json_lines

pytest.importorskip("torchvision")
pytestmark = [pytest.mark.usefixtures("fast_runs"), pytest.mark.slow]

# 58 of 72 pictures for training: 2 steps an epoch.
NETWORK = """
name: tiny
dataset: {type: image_folder, root: pictures, val_fraction: 0.1, test_fraction: 0.1}
transforms: [{type: resize, size: 32}, {type: normalize, mean: [0.3, 0.3, 0.3], std: [0.4, 0.4, 0.4]}]
model: {type: torchvision, name: NAME, weights: none}
optimizer: {type: adamw, lr: 0.001}
fine_tuning: {freeze: backbone}
training: {epochs: 3, batch_size: 24, precision: fp32, drop_last: true}
logging: {every: 1, plots: false}
"""
NAMES = ["mobilenet_v3_small", "resnet18", "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t"]


@pytest.fixture
def folder(tmp_path):
    """With pictures of three classes; the digits would be 1,800 to train on or to score."""
    pixels = np.random.default_rng(0).integers(0, 256, (72, 8, 8, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        path = tmp_path / "pictures" / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return tmp_path


def newest(run):
    return load_checkpoint(CheckpointFolder(run.checkpoints).newest_good()[0])


def losses(run):
    return [record["train_loss"] for record in read_json_lines(run.metrics) if record["type"] == "epoch"]


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_backbone_stays_as_it_was(folder, name):
    text = NETWORK.replace("NAME", name)
    config = load(folder, text)
    setup = build_setup(config.config)
    before, head = setup.model.state_dict(), setup.model.head_prefixes
    cached = train_with_stops(config, folder / "cached")
    plain = train_with_stops(load(folder, text, "fine_tuning.cache_features=false"), folder / "plain")
    for run in (cached, plain):
        after = newest(run)["model"]
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        assert moved == {key for key in before if key.startswith(tuple(f"{prefix}." for prefix in head))}
    assert newest(cached)["choices"]["cache_features"]["value"] == "true"
    assert losses(cached) == pytest.approx(losses(plain), rel=1e-5)


@pytest.mark.parametrize("name", NAMES[:3])  # test_pretrained.py has all six, unfrozen
@pytest.mark.parametrize("cache", ["auto", "false"])
def test_a_run_that_resumes_has_the_bits_of_the_whole_one(folder, name, cache):
    text = NETWORK.replace("NAME", name)
    overrides = [f"fine_tuning.cache_features={cache}", "fine_tuning.unfreeze=[{at: 3st, modules: all}]"]
    overrides += ["optimizer={type: sgd, lr: 0.01}", "training.epochs=2", "checkpoint.keep_last=1"]
    runs = [
        train_with_stops(load(folder, text, *overrides), folder / f"runs{len(stops)}", stops)
        for stops in ([], [1, 2, 3])
    ]
    assert differences(*runs) == []
