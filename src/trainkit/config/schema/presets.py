"""The published weights of torchvision's classifiers, and how their pictures were prepared.

As in torchvision 0.29, written down here so that configs are checked without importing it; a test compares the two.
"""

from dataclasses import dataclass
from typing import Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Preset:
    """The pictures that weights were made for: resize, center crop, ``(x - mean) / std`` by channel."""

    resize: int
    """Length of the shorter side."""
    crop: int
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    squash: bool = False
    """Whether both sides are resized to that length."""


def _v1(resize: int, crop: int, interpolation: Literal["bilinear", "bicubic"] = "bilinear") -> dict[str, Preset]:
    return {"IMAGENET1K_V1": Preset(resize, crop, interpolation)}


def _swag(crop: int) -> dict[str, Preset]:
    return {
        "IMAGENET1K_SWAG_E2E_V1": Preset(crop, crop, "bicubic"),
        "IMAGENET1K_SWAG_LINEAR_V1": Preset(224, 224, "bicubic"),
    }


_OLD = _v1(256, 224)
_NEW = _v1(232, 224)
_BOTH = {"IMAGENET1K_V2": Preset(232, 224), **_OLD}

TORCHVISION: dict[str, dict[str, Preset]] = {
    "alexnet": _OLD,
    "convnext_base": _NEW,
    "convnext_large": _NEW,
    "convnext_small": _v1(230, 224),
    "convnext_tiny": _v1(236, 224),
    "densenet121": _OLD,
    "densenet161": _OLD,
    "densenet169": _OLD,
    "densenet201": _OLD,
    "efficientnet_b0": _v1(256, 224, "bicubic"),
    "efficientnet_b1": {"IMAGENET1K_V2": Preset(255, 240), "IMAGENET1K_V1": Preset(256, 240, "bicubic")},
    "efficientnet_b2": _v1(288, 288, "bicubic"),
    "efficientnet_b3": _v1(320, 300, "bicubic"),
    "efficientnet_b4": _v1(384, 380, "bicubic"),
    "efficientnet_b5": _v1(456, 456, "bicubic"),
    "efficientnet_b6": _v1(528, 528, "bicubic"),
    "efficientnet_b7": _v1(600, 600, "bicubic"),
    "efficientnet_v2_l": {"IMAGENET1K_V1": Preset(480, 480, "bicubic", mean=_HALF, std=_HALF)},
    "efficientnet_v2_m": _v1(480, 480),
    "efficientnet_v2_s": _v1(384, 384),
    "googlenet": _OLD,
    "inception_v3": _v1(342, 299),
    "maxvit_t": _v1(224, 224, "bicubic"),
    "mnasnet0_5": _OLD,
    "mnasnet0_75": _NEW,
    "mnasnet1_0": _OLD,
    "mnasnet1_3": _NEW,
    "mobilenet_v2": _BOTH,
    "mobilenet_v3_large": _BOTH,
    "mobilenet_v3_small": _OLD,
    "regnet_x_16gf": _BOTH,
    "regnet_x_1_6gf": _BOTH,
    "regnet_x_32gf": _BOTH,
    "regnet_x_3_2gf": _BOTH,
    "regnet_x_400mf": _BOTH,
    "regnet_x_800mf": _BOTH,
    "regnet_x_8gf": _BOTH,
    "regnet_y_128gf": _swag(384),
    "regnet_y_16gf": _BOTH | _swag(384),
    "regnet_y_1_6gf": _BOTH,
    "regnet_y_32gf": _BOTH | _swag(384),
    "regnet_y_3_2gf": _BOTH,
    "regnet_y_400mf": _BOTH,
    "regnet_y_800mf": _BOTH,
    "regnet_y_8gf": _BOTH,
    "resnet101": _BOTH,
    "resnet152": _BOTH,
    "resnet18": _OLD,
    "resnet34": _OLD,
    "resnet50": _BOTH,
    "resnext101_32x8d": _BOTH,
    "resnext101_64x4d": _NEW,
    "resnext50_32x4d": _BOTH,
    "shufflenet_v2_x0_5": _OLD,
    "shufflenet_v2_x1_0": _OLD,
    "shufflenet_v2_x1_5": _NEW,
    "shufflenet_v2_x2_0": _NEW,
    "squeezenet1_0": _OLD,
    "squeezenet1_1": _OLD,
    "swin_b": _v1(238, 224, "bicubic"),
    "swin_s": _v1(246, 224, "bicubic"),
    "swin_t": _v1(232, 224, "bicubic"),
    "swin_v2_b": _v1(272, 256, "bicubic"),
    "swin_v2_s": _v1(260, 256, "bicubic"),
    "swin_v2_t": _v1(260, 256, "bicubic"),
    "vgg11": _OLD,
    "vgg11_bn": _OLD,
    "vgg13": _OLD,
    "vgg13_bn": _OLD,
    "vgg16": _OLD,
    "vgg16_bn": _OLD,
    "vgg19": _OLD,
    "vgg19_bn": _OLD,
    "vit_b_16": _OLD | _swag(384),
    "vit_b_32": _OLD,
    "vit_h_14": _swag(518),
    "vit_l_16": _v1(242, 224) | _swag(512),
    "vit_l_32": _OLD,
    "wide_resnet101_2": _BOTH,
    "wide_resnet50_2": _BOTH,
}
"""By name: the weights, those that ``default`` stands for first."""
