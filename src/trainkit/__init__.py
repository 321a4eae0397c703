"""trainkit: train PyTorch models from YAML configs.

import trainkit

result = trainkit.train("configs/digits_cnn.yaml", overrides=["training.epochs=5"])
trainkit.evaluate(result.best_checkpoint).metrics
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainkit._version import __version__
from trainkit.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    Interrupted,
    Place,
    Problem,
    ProblemsError,
    TrainkitError,
    UserError,
)

if TYPE_CHECKING:
    from trainkit.api import (
        CvResult,
        EvalResult,
        ExportResult,
        InitResult,
        LoadedConfig,
        LrFindResult,
        Prediction,
        TrainedModel,
        TrainResult,
        cross_validate,
        evaluate,
        export,
        init,
        load_config,
        load_model,
        lr_find,
        predict,
        resume,
        sweep,
        train,
    )
    from trainkit.callbacks import Progress
    from trainkit.config.schema.base import Section
    from trainkit.exports import ExportError
    from trainkit.plugins import Plugin, load_plugin
    from trainkit.system import own_process

__all__ = [
    "CheckpointError",
    "ConfigError",
    "CvResult",
    "DataError",
    "EvalResult",
    "ExportError",
    "ExportResult",
    "InitResult",
    "Interrupted",
    "LoadedConfig",
    "LrFindResult",
    "Place",
    "Plugin",
    "Prediction",
    "Problem",
    "ProblemsError",
    "Progress",
    "Section",
    "TrainResult",
    "TrainedModel",
    "TrainkitError",
    "UserError",
    "__version__",
    "cross_validate",
    "evaluate",
    "export",
    "init",
    "load_config",
    "load_model",
    "load_plugin",
    "lr_find",
    "own_process",
    "predict",
    "resume",
    "sweep",
    "train",
]

_HOMES = {
    "ExportError": "trainkit.exports",
    "Plugin": "trainkit.plugins",
    "Progress": "trainkit.callbacks",
    "Section": "trainkit.config.schema.base",
    "load_config": "trainkit.config",
    "load_plugin": "trainkit.plugins",
    "own_process": "trainkit.system",
}
"""Where what is loaded later comes from; the rest is in ``trainkit.api``."""


def __getattr__(name: str) -> Any:
    """Import what is first asked for: ``import trainkit`` itself loads no torch (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'trainkit' has no attribute {name!r}")
    found = getattr(import_module(_HOMES.get(name, "trainkit.api")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
