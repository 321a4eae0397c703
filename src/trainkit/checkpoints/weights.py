"""Weights from elsewhere: read from ``.pth`` or ``.safetensors`` files, and matched with a model by name and shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.checkpoints.archive import DamagedFile, open_regular
from trainkit.checkpoints.inspection import KIND, read_archive
from trainkit.checkpoints.journal import follow_pointer
from trainkit.checkpoints.serialization import load_plain

if TYPE_CHECKING:
    from torch import Tensor, nn

# Where programs keep the state_dict in a larger checkpoint, and what wrappers put before each name.
_WEIGHT_KEYS = ("state_dict", "model_state_dict", "model", "weights", "net")
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class WeightsReport:
    """How foreign weights fit a model; names in the order of the model, others in that of the file."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    """In the model only: they keep their initial values."""
    unexpected: tuple[str, ...]
    """In the file only: they are not used."""
    wrong_shape: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    """Name, shape in the file, shape in the model: not used either."""


def load_weights_file(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a trainkit checkpoint (averaged ones first), a state_dict, or a safetensors file.

    A checkpoint of another program is searched for its state_dict; ``module.`` and ``_orig_mod.``, which wrappers put
    before every name, are taken off. Files are checked as checkpoints are, and code in them is refused.

    Raises:
        DamagedFile: says what is wrong with the file.
    """
    path = follow_pointer(path)
    if path.suffix == ".safetensors":
        weights = _read_safetensors(path)
    else:
        with open_regular(path) as file:
            read_archive(file, path)
            weights = _find_weights(load_plain(file, path), path)
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in weights):
            weights = {name.removeprefix(wrapper): tensor for name, tensor in weights.items()}
    return weights


def _find_weights(value: Any, path: Path) -> dict[str, Tensor]:
    from torch import Tensor

    if isinstance(value, dict):
        candidates = [value, *(value[key] for key in _WEIGHT_KEYS if key in value)]
        if value.get("kind") == KIND:
            ema = value.get("ema")
            averaged = ema.get("model", ema) if isinstance(ema, dict) else None
            candidates = [averaged, value.get("model")]
        for candidate in candidates:
            if (
                isinstance(candidate, dict)
                and candidate
                and all(isinstance(item, Tensor) for item in candidate.values())
            ):
                return {str(name): tensor for name, tensor in candidate.items()}
    raise DamagedFile(path, f"holds no state_dict, neither itself nor under {', '.join(_WEIGHT_KEYS)}")


def match_weights(weights: Mapping[str, Tensor], model: nn.Module) -> WeightsReport:
    """Compare weights with a model by name and shape; nothing is changed."""
    own = model.state_dict()
    shared = [name for name in own if name in weights]
    return WeightsReport(
        matched=tuple(name for name in shared if weights[name].shape == own[name].shape),
        missing=tuple(name for name in own if name not in weights),
        unexpected=tuple(name for name in weights if name not in own),
        wrong_shape=tuple(
            (name, tuple(weights[name].shape), tuple(own[name].shape))
            for name in shared
            if weights[name].shape != own[name].shape
        ),
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    open_regular(path).close()  # a pipe would block
    try:
        with safe_open(path, framework="pt") as file:
            # Copies: what the library gives are views of the file.
            weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).removeprefix("Error while deserializing header: ")[:200]
        raise DamagedFile(path, f"damaged, or not a safetensors file: {reason}") from None
    if not weights:
        raise DamagedFile(path, "holds no tensors")
    return weights
