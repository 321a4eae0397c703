"""A network with its published head answers as torchvision's own network and pictures do."""

import numpy as np
import pytest
import torch
from PIL import Image
from published_networks import SIX, color_pictures, published_network, weights_file
from torchvision import models

from trainkit.builders import build_setup, check_kept_classes
from trainkit.config import load_config
from trainkit.config.schema.presets import TORCHVISION
from trainkit.data.dataset import Dataset, Part, Split
from trainkit.errors import ProblemsError

COUNT = 24


def pictures_of_all_classes(images):
    """A data set of 1000 classes, of which the first ones have a picture."""
    return Dataset(
        name="pictures",
        kind="image",
        task="classification",
        parts={"train": Part(images, np.arange(len(images), dtype=np.int64))},
        splits={"train": Split("train", np.arange(len(images), dtype=np.int64))},
        class_names=tuple(f"class {number}" for number in range(1000)),
        feature_names=(),
        target_names=(),
        fingerprint={"parts": {"train": {"inputs": "published networks"}}},
        channels=3,
    )


@pytest.mark.parametrize(
    "name", [name if name == "mobilenet_v3_small" else pytest.param(name, marks=pytest.mark.slow) for name in SIX]
)
def test_logits_equal_torchvision(name, tmp_path, monkeypatch):
    """The shorter side has the length that the preset resizes to: Pillow and torch round resized pixels otherwise."""
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "cache"))
    theirs = published_network(name)
    side = next(iter(TORCHVISION[name].values())).resize
    images = color_pictures(COUNT, side, side + 40)
    config = load_config(
        {
            "dataset": {"type": "image_folder", "root": "unused"},
            "transforms": "auto",
            "model": {
                "type": "torchvision",
                "name": name,
                "weights": str(weights_file(theirs, name, tmp_path)),
                "head": "keep",
            },
            "training": {"precision": "fp32"},
            "device": "cpu",
        }
    ).config
    setup = build_setup(config, source=pictures_of_all_classes(images))
    batches = setup.sample_batches(batch_size=16, device=torch.device("cpu"))
    setup.model.eval()
    preset = models.get_model_weights(name).DEFAULT.transforms()
    prepared = torch.stack([preset(Image.fromarray(image.transpose(1, 2, 0))) for image in images])
    with torch.inference_mode():
        own = torch.cat([setup.forward(batch.inputs) for batch in batches.epoch(0)])
        expected = torch.cat([theirs(some) for some in prepared.split(16)])
    assert own.shape == (COUNT, 1000)
    assert expected.std() > 0.01
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)
    assert torch.equal(own.argmax(1), expected.argmax(1))


def test_classes_in_another_order_than_those_of_a_kept_head():
    """By name, where the weights know most names; names that they do not know, such as numbers, say nothing."""
    model = {"type": "torchvision", "name": "resnet18", "head": "keep"}
    config = load_config({"dataset": {"type": "image_folder", "root": "unused"}, "model": model}).config
    categories = models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    check_kept_classes(config, [name.replace(" ", "_") for name in categories])
    check_kept_classes(config, [f"n{number:08}" for number in range(1000)])
    with pytest.raises(ProblemsError, match="output 0 stands for 'tench' in the weights and for 'goldfish'"):
        check_kept_classes(config, [*categories[1:], categories[0]])
