"""``transforms: auto`` is the preset of the weights, written out; for models without weights it is an error."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models
from torchvision.transforms.v2 import functional as F

from trainkit.config import load_config
from trainkit.config.schema.presets import TORCHVISION
from trainkit.errors import ConfigError

FOLDER = {"type": "image_folder", "root": "pictures"}


def resolved(model, **sections):
    return load_config({"dataset": FOLDER, "model": model, **sections}).resolved()["transforms"]


def torchvision(name="resnet18", **keys):
    return {"type": "torchvision", "name": name, **keys}


def test_the_preset_is_written_out():
    assert resolved(torchvision("efficientnet_b0"), transforms="auto") == [
        {"type": "resize", "size": 256, "interpolation": "bicubic"},
        {"type": "center_crop", "size": 224},
        {"type": "random_horizontal_flip", "p": 0.5, "alternate": False},
        {"type": "normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    ]


def test_auto_is_what_comes_with_such_a_model():
    assert resolved(torchvision()) == resolved(torchvision(), transforms="auto")
    assert resolved(torchvision(), transforms=["normalize"])[0]["type"] == "normalize"
    assert resolved(torchvision(), transforms=[]) == []


@pytest.mark.parametrize("weights", ["default", "none", "IMAGENET1K_V2", "own/file.pth"])
def test_the_best_weights_stand_for_others(weights):
    assert resolved(torchvision("resnet50", weights=weights))[0]["size"] == 232


def test_named_weights_have_their_own():
    assert resolved(torchvision("resnet50", weights="IMAGENET1K_V1"))[0]["size"] == 256
    assert resolved(torchvision("vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1"))[1]["size"] == 384


def test_small_pictures_are_resized_whole_and_the_reason_is_noted():
    loaded = load_config({"dataset": "cifar10", "model": torchvision()})
    assert loaded.resolved()["transforms"][0]["size"] == [224, 224]
    assert len(loaded.resolved()["transforms"]) == 3
    assert loaded.notes[-1].startswith("transforms: auto: pictures of 32 x 32 are resized to 224 x 224")


def test_the_resolved_config_is_the_same_config():
    loaded = load_config({"dataset": FOLDER, "model": torchvision()})
    assert load_config(loaded.resolved()).resolved() == loaded.resolved()


def test_other_models_have_no_preset():
    with pytest.raises(ConfigError, match=r"auto is for models with published weights, and mlp has none; write \["):
        resolved({"type": "mlp"}, transforms="auto")
    with pytest.raises(ConfigError, match=r"write \[standardize\]"):
        load_config({"dataset": "wine", "model": "mlp", "transforms": "auto"})


def test_mistakes_beside_it_are_told_once():
    with pytest.raises(ConfigError) as caught:
        resolved(torchvision("resnet19"), transforms="auto")
    assert [problem.key for problem in caught.value.problems] == ["model.name"]


def test_as_torchvision_prepares_its_pictures():
    """As torchvision resizes bytes, and so within one gray value of what it makes of a picture of Pillow."""
    from trainkit.builders import build_static_transforms
    from trainkit.data.dataset import Dataset, Part, Split
    from trainkit.data.transforms import apply_static_transforms_to_batch

    pixels = np.random.default_rng(0).integers(0, 256, (300, 340, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    source = Dataset(
        name="pictures",
        kind="image",
        task="classification",
        parts={"train": Part(image.numpy(), np.zeros(1, dtype=np.int64))},
        splits={"train": Split("train", np.zeros(1, dtype=np.int64))},
        class_names=("a",),
        feature_names=(),
        target_names=(),
        fingerprint={},
        channels=3,
    )
    for name in ("resnet18", "efficientnet_b0", "vit_b_16"):
        for weights in TORCHVISION[name]:
            config = load_config({"dataset": FOLDER, "model": torchvision(name, weights=weights)}).config
            ours = apply_static_transforms_to_batch(image, build_static_transforms(config, source))
            preset = models.get_model_weights(name)[weights].transforms()
            resized = F.resize(
                image, preset.resize_size, interpolation=preset.interpolation, antialias=preset.antialias
            )
            assert torch.equal(ours, F.center_crop(resized, preset.crop_size))
            normalize = config.transforms[-1]
            assert (normalize.mean, normalize.std) == (list(preset.mean), list(preset.std))
            mean, std = (torch.tensor(values)[:, None, None] for values in (normalize.mean, normalize.std))
            difference = (ours[0].float() / 255 - mean) / std - preset(Image.fromarray(pixels))
            assert (difference * std * 255).abs().max() < 1.01


def test_timm_has_its_own():
    pytest.importorskip("timm")
    assert resolved({"type": "timm", "name": "vit_tiny_patch16_224"})[0] == {
        "type": "resize",
        "size": 248,
        "interpolation": "bicubic",
    }
