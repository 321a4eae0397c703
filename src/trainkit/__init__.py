"""trainkit: train PyTorch models from YAML configs.

import trainkit

result = trainkit.train("configs/digits_cnn.yaml", overrides=["training.epochs=5"])
trainkit.evaluate(result.best_checkpoint).metrics
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainkit._version import __version__

if TYPE_CHECKING:
    from trainkit.config import load_config
    from trainkit.system import Frontend, own_process
    from trainkit.workflows.evaluate import evaluate
    from trainkit.workflows.export import export
    from trainkit.workflows.predict import predict
    from trainkit.workflows.train import resume, train

__all__ = [
    "Frontend",
    "__version__",
    "evaluate",
    "export",
    "load_config",
    "own_process",
    "predict",
    "resume",
    "train",
]

_HOMES = {
    "Frontend": "trainkit.system.frontend",
    "evaluate": "trainkit.workflows.evaluate.run",
    "export": "trainkit.workflows.export",
    "load_config": "trainkit.config",
    "own_process": "trainkit.system.processes",
    "predict": "trainkit.workflows.predict.run",
    "resume": "trainkit.workflows.train.run",
    "train": "trainkit.workflows.train.run",
}


def __getattr__(name: str) -> Any:
    """Import a function when it is first asked for: ``import trainkit`` itself loads no torch (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'trainkit' has no attribute {name!r}")
    function = getattr(import_module(_HOMES[name]), name)
    globals()[name] = function
    return function
