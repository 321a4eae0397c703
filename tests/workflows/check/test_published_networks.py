"""Every classifier of torchvision passes the check, with pictures of seven classes; so do some of timm."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from trainkit.config import load_config
from trainkit.config.schema.presets import TORCHVISION
from trainkit.errors import ConfigError
from trainkit.system import Frontend
from trainkit.workflows.check import check


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("seven")
    rng = np.random.default_rng(0)
    for number in range(7):
        (root / f"class{number}").mkdir()
        for index in range(5):
            Image.fromarray(rng.integers(0, 256, (60, 70, 3), dtype=np.uint8)).save(
                root / f"class{number}" / f"{index}.png"
            )
    return root


def checked(root, model, **sections):
    config = {"dataset": {"type": "image_folder", "root": str(root)}, "model": {"weights": "none", **model}}
    config |= {"training": {"batch_size": 2}, "device": "cpu", **sections}
    return check(load_config(config), frontend=replace(Frontend(), say=lambda message: None))


SMALL = ("mobilenet_v3_small", "shufflenet_v2_x0_5", "regnet_y_400mf", "googlenet")


@pytest.mark.parametrize(
    "name", [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in TORCHVISION]
)
def test_classifier_of_torchvision(pictures, name):
    pieces = {"batch_size": 2, "accumulation_steps": 2 if name == "vit_h_14" else 1}  # its activations take gigabytes
    sections = {"training": pieces, "optimizer": "sgd"}
    report = checked(pictures, {"type": "torchvision", "name": name}, **sections)
    assert report.output_size == 7
    assert report.input_shape == (3, *[next(iter(TORCHVISION[name].values())).crop] * 2)
    heavy = sum(row.multiply_adds for row in report.rows) > 20e9
    assert heavy == any("not tried on samples" in note for note in report.notes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "convnext_atto", "vit_tiny_patch16_224", "resnet10t", "xcit_nano_12_p16_224"]
)
def test_network_of_timm(pictures, name):
    pytest.importorskip("timm")
    assert checked(pictures, {"type": "timm", "name": name}).output_size == 7


@pytest.mark.parametrize(
    ("model", "transforms", "words"),
    [
        ({"name": "vit_b_16"}, ["normalize"], "vit_b_16 takes square images, got 60 x 70; resize or crop them"),
        (
            {"name": "vit_b_16", "weights": "default"},
            [{"type": "resize", "size": [64, 64]}],
            "the weights of vit_b_16 are for images of 224 x 224, got 64 x 64",
        ),
        ({"name": "maxvit_t"}, ["normalize"], "maxvit_t does not take images of 60 x 70"),
        ({"name": "inception_v3"}, [{"type": "resize", "size": [40, 40]}], "(?s)Conv2d|MaxPool2d|does not take"),
    ],
)
def test_sizes_that_do_not_fit(pictures, model, transforms, words):
    with pytest.raises(ConfigError, match=words):
        checked(pictures, {"type": "torchvision", **model}, transforms=transforms)
