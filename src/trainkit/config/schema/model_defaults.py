"""Defaults that come with a model: those of its paper, where nothing is written."""

from copy import deepcopy
from typing import Any

_OF_MODELS: dict[str, dict[str, Any]] = {
    # RealMLP-TD of Holzmueller et al., 2024. The state is saved less often: an epoch of a small table takes less time.
    "tabular_mlp": {
        "transforms": ["robust_scale"],
        "loss": {"type": "auto", "label_smoothing": 0.1},
        "optimizer": {
            "type": "adamw",
            "lr": 0.04,
            "betas": [0.9, 0.95],
            "weight_decay": 0.02,
            "weight_decay_schedule": "flat_cos",
            "no_decay": "norm_and_bias",
        },
        "scheduler": {"type": "coslog"},
        "training": {"epochs": 256, "batch_size": 256, "drop_last": "auto"},
        "checkpoint": {"every": 16},
    },
    "torchvision": {"transforms": "auto"},
    "timm": {"transforms": "auto"},
}


def model_defaults(data: Any) -> tuple[str, dict[str, Any]]:
    """The type of the model in a config as plain data, and the sections that come with it."""
    model = data.get("model") if isinstance(data, dict) else None
    name = model.get("type") if isinstance(model, dict) else model
    return (name, deepcopy(_OF_MODELS.get(name, {}))) if isinstance(name, str) else ("", {})


def with_model_defaults(data: Any) -> tuple[Any, dict[str, Any]]:
    """A config as plain data, completed by what comes with its model; and what was added.

    A section that was written with a ``type`` is complete as it is; other mappings get the keys that they lack.
    """
    added: dict[str, Any] = {}
    for section, defaults in model_defaults(data)[1].items():
        written = data.get(section)
        if section not in data:
            added[section] = defaults
        elif isinstance(written, dict) and isinstance(defaults, dict) and "type" not in written:
            added[section] = {key: value for key, value in defaults.items() if key not in written}
    both = {section: {**values, **data[section]} if section in data else values for section, values in added.items()}
    return ({**data, **both} if both else data), added
