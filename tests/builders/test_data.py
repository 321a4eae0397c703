"""Every transform of the schema becomes the object that its class variables promise."""

from typing import Any, get_args

import pytest

from trainkit.builders.data import (
    build_batch_transforms,
    load_source,
    preprocessing,
)
from trainkit.builders.static_transforms import build_static_transforms, count_static_transforms
from trainkit.config.schema import Config
from trainkit.config.schema.base import variants_of
from trainkit.config.schema.transforms import Transform
from trainkit.data.transforms import columns
from trainkit.data.transforms.normalize import Normalize
from trainkit.data.transforms.static import StaticTransform, static_transforms_from_json, static_transforms_to_json

VARIANTS: dict[str, Any] = variants_of(Transform)
KEYS: dict[str, dict[str, Any]] = {
    "resize": {"size": [6, 5]},
    "center_crop": {"size": 4},
    "random_crop": {"size": 6, "padding": 1},
    "random_resized_crop": {"size": [6, 5]},
    "random_rotation": {"degrees": 10.0},
    "random_affine": {"degrees": 10.0},
    "random_posterize": {"bits": 4},
    "random_solarize": {"threshold": 0.5},
    "random_adjust_sharpness": {"sharpness_factor": 2.0},
}
"""Those that a transform cannot do without."""


def config_of(*names: str, dataset: str = "digits") -> Config:
    transforms = [{"type": name, **KEYS.get(name, {})} for name in names]
    return Config.model_validate({"dataset": {"type": dataset}, "model": {"type": "mlp"}, "transforms": transforms})


@pytest.mark.parametrize("name", VARIANTS)
def test_a_transform_is_built_as_its_stage_says(name: str) -> None:
    config = config_of(name, dataset="iris" if VARIANTS[name].works_on == "table" else "digits")
    [section] = config.transforms
    static_transforms = build_static_transforms(config, load_source(config))
    if section.stage == "static":
        [static] = static_transforms
        assert isinstance(static, get_args(StaticTransform))
        assert static.to_json()["type"] == name
        assert static.output_shape((1, 8, 8))[1:] == section.output_size(8, 8)
        return
    assert static_transforms == []
    [transform] = build_batch_transforms(config, load_source(config))
    scaling = (Normalize, *columns.SCALING.values())
    assert isinstance(transform, scaling) == (section.stage == "scaling")
    if section.stage != "scaling":
        assert transform.name == name
        assert transform.output_shape((1, 8, 8))[1:] == section.output_size(8, 8)


def test_static_transforms_end_at_the_first_other_one() -> None:
    assert count_static_transforms(config_of("resize", "grayscale", "random_horizontal_flip", "normalize")) == 2
    assert count_static_transforms(config_of("random_horizontal_flip", "normalize")) == 0
    assert count_static_transforms(config_of("resize", "center_crop")) == 2
    assert count_static_transforms(config_of()) == 0


def test_a_checkpoint_describes_the_static_transforms_and_the_crop_of_evaluation() -> None:
    config = config_of("resize", "grayscale", "random_crop")
    stored = preprocessing(
        config, load_source(config), build_batch_transforms(config, load_source(config)), input_shape=(1, 6, 6)
    )
    assert static_transforms_to_json(static_transforms_from_json(stored["front"])) == [
        {"type": "resize", "size": [6, 5], "interpolation": "bilinear"},
        {"type": "grayscale", "num_output_channels": 1},
        {"type": "center_crop", "size": [6, 6]},
    ]


def test_a_checkpoint_describes_what_evaluation_does_in_the_place_of_a_resized_crop() -> None:
    config = config_of("random_resized_crop")
    data = load_source(config)
    stored = preprocessing(config, data, build_batch_transforms(config, data), input_shape=(1, 6, 5))
    assert static_transforms_to_json(static_transforms_from_json(stored["front"])) == [
        {"type": "resize", "size": 7, "interpolation": "bilinear"},
        {"type": "center_crop", "size": [6, 5]},
    ]
