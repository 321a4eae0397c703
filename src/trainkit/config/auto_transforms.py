"""``transforms: auto``: the pictures that published weights were made for, as transforms of the config."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from trainkit.config.schema import Config
from trainkit.config.schema.presets import TORCHVISION, Preset
from trainkit.config.schema.pretrained import Pretrained, Timm, Torchvision, weights_file
from trainkit.config.schema.transforms import Transform
from trainkit.errors import Problem

AUTO = "auto"


def without_auto(data: Any, added: dict[str, Any]) -> tuple[Any, bool]:
    """A config as plain data without ``transforms: auto``, and whether it had that; ``added`` gets it too."""
    if not isinstance(data, dict) or data.get("transforms") != AUTO:
        return data, False
    added["transforms"] = AUTO
    return {name: value for name, value in data.items() if name != "transforms"}, True


def with_auto_transforms(config: Config) -> tuple[Config, list[Problem], list[str]]:
    """The config with the transforms of its model's weights, what hinders that, and a note on what was chosen."""
    model, kind = config.model, config.dataset.known_info().kind
    if not isinstance(model, Pretrained):
        instead = {"image": "normalize", "table": "standardize"}.get(kind, "normalize, or standardize for a table")
        message = f"auto is for models with published weights, and {model.type} has none; write [{instead}]"
        return config, [Problem(message, "transforms")], []
    if kind == "table":
        return config, [], []  # a mistake of its own, and so is an unknown name
    try:
        found = _preset_of(model)
    except ModuleNotFoundError:
        return config, [Problem(NO_TIMM, "model.type")], []
    if found is None:
        return config, [], []
    preset, source = found
    specs, what = _transforms_for(preset, config.dataset.known_info().image_shape)
    transforms = TypeAdapter(list[Transform]).validate_python(specs)
    note = (
        f"transforms: auto: {what}, flipped at random while training, and normalized, as for {source} of {model.name}"
    )
    return config.model_copy(update={"transforms": transforms}), [], [note]


NO_TIMM = "it needs the timm package, which is not installed; pip install timm"


def _preset_of(model: Torchvision | Timm) -> tuple[Preset, str] | None:
    """The preset and whose it is; None where the name is unknown."""
    named = model.weights not in ("default", "none") and weights_file(model) is None
    source = f"the weights {model.weights}" if named else "the default weights"
    if isinstance(model, Torchvision):
        published = TORCHVISION[model.name]
        name = model.weights if named else next(iter(published))
        return (published[name], f"the weights {name}") if name in published else None
    if importlib.util.find_spec("timm") is None:
        raise ModuleNotFoundError("timm")
    import timm

    name = f"{model.name}.{model.weights}" if named else model.name
    if not timm.is_model(model.name) or (about := timm.get_pretrained_cfg(name)) is None:
        return None
    crop = about.input_size[-1]
    preset = Preset(
        resize=math.floor(crop / about.crop_pct),
        crop=crop,
        interpolation="bilinear" if about.interpolation == "bilinear" else "bicubic",
        mean=tuple(about.mean),
        std=tuple(about.std),
        squash=about.crop_mode == "squash",
    )
    return preset, source


def _transforms_for(preset: Preset, shape: Sequence[int | None]) -> tuple[list[dict[str, Any]], str]:
    """The transforms as plain data, and what they do to the size. ``shape``: of the pictures, as far as it is known."""
    _, height, width = shape
    crop, resize = preset.crop, preset.resize
    sizes: list[dict[str, Any]] = [{"type": "resize", "size": resize}, {"type": "center_crop", "size": crop}]
    what = f"the shorter side is resized to {resize} and the center of {crop} x {crop} taken"
    if height is not None and width is not None and max(height, width) < crop:
        # A crop would only cut off the border of pictures that have fewer pixels than the result.
        sizes = [{"type": "resize", "size": [crop, crop]}]
        what = f"pictures of {height} x {width} are resized to {crop} x {crop}"
    elif preset.squash:
        sizes[0]["size"] = [resize, resize]
    sizes[0]["interpolation"] = preset.interpolation
    normalize = {"type": "normalize", "mean": list(preset.mean), "std": list(preset.std)}
    return [*sizes, {"type": "random_horizontal_flip"}, normalize], what
