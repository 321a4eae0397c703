"""Weights from elsewhere: read from ``.pth`` or ``.safetensors`` files, and matched with a model by name and shape."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from trainkit.checkpoints.archive import DamagedFile, open_regular
from trainkit.checkpoints.inspection import KIND, read_archive
from trainkit.checkpoints.journal import follow_pointer
from trainkit.checkpoints.serialization import load_plain
from trainkit.checkpoints.state_dicts import is_finite
from trainkit.errors import CheckpointError

_MAX_HEADER_BYTES = 100 << 20  # the limit of the safetensors format
_SAFETENSORS_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
# Where programs keep the state_dict in a larger checkpoint, and what wrappers put before each name.
_WEIGHT_KEYS = ("state_dict", "model_state_dict", "model", "weights", "net")
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class WeightsReport:
    """How foreign weights fit a model; names in the order of the model, those it does not have in the file's order."""

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
    with open_regular(path) as file:
        if path.suffix == ".safetensors":
            weights = read_safetensors(file, path)
        else:
            read_archive(file, path)
            weights = _find_weights(load_plain(file, path), path)
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in weights):
            weights = {name.removeprefix(wrapper): tensor for name, tensor in weights.items()}
    return weights


def _find_weights(value: Any, path: Path) -> dict[str, Tensor]:
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


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


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


def load_matching_weights(model: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> WeightsReport:
    """Copy the weights that match into the model, in the model's own dtype; ``source`` is for messages.

    Raises:
        CheckpointError: nothing matches, or a tensor that does has NaN or infinity; the model is as it was.
    """
    report = match_weights(weights, model)
    if not report.matched:
        theirs, ours = list(weights)[:3], list(model.state_dict())[:3]
        raise CheckpointError(f"{source}: no tensor has a name and shape of the model (file: {theirs}, model: {ours})")
    broken = [name for name in report.matched if not is_finite(weights[name])]
    if broken:
        raise CheckpointError(f"{source}: NaN or infinity in {', '.join(broken[:5])}")
    model.load_state_dict({name: weights[name] for name in report.matched}, strict=False)
    return report


def read_safetensors(file: BinaryIO, path: str | Path) -> dict[str, Tensor]:
    """Read an open safetensors file: 8 bytes of header length, a JSON header, then the tensors without gaps.

    Source: the format's description in huggingface/safetensors, README.md.

    Raises:
        DamagedFile: the header and the bytes do not agree.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) != 8 or length > min(size - 8, _MAX_HEADER_BYTES):
        raise DamagedFile(path, "damaged, or not a safetensors file")
    try:
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        parts = sorted((*entry["data_offsets"], name, entry["dtype"], entry["shape"]) for name, entry in header.items())
        tensors: dict[str, Tensor] = {}
        position = 0
        for begin, end, name, kind, shape in parts:
            dtype = _SAFETENSORS_DTYPES[kind]
            whole = all(type(number) is int and number >= 0 for number in (begin, end, *shape))
            if not whole or begin != position or end > size - 8 - length:
                raise ValueError(name)
            if math.prod(shape) * dtype.itemsize != end - begin:
                raise ValueError(name)
            data = bytearray(file.read(end - begin))
            tensors[name] = (
                torch.frombuffer(data, dtype=dtype).reshape(shape) if data else torch.empty(shape, dtype=dtype)
            )
            position = end
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise DamagedFile(path, f"damaged: its header makes no sense ({str(error)[:100]})") from None
    if position != size - 8 - length or not tensors:
        raise DamagedFile(path, "damaged: its header does not describe all of its bytes")
    return tensors
