"""Nested states of tensors and plain values: made plain before a save, compared with a model after a load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from trainkit.errors import CheckpointError, TrainkitError
from trainkit.wording import listed

if TYPE_CHECKING:
    from torch import Tensor, nn

# Parts of the state that training would go on from: a NaN in them is a broken run.
_FINITE_PARTS = ("model", "ema", "optimizer")
_some = partial(listed, limit=5, quoted=False)


def plain_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The same values as plain dict, list, tuple, str, int, float, bool, None and CPU tensors, each container its own.

    Tensors that share memory still do; one that is a part of a larger storage gets its own, so that the rest is not
    saved. Raises TypeError, with the key, for anything else: ``torch.load(weights_only=True)`` would refuse it.
    """
    import torch
    from torch import Tensor

    moved: dict[tuple[Any, ...], Tensor] = {}

    def tensor(value: Tensor, key: str) -> Tensor:
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise TypeError(f"{key}: a {value.layout} tensor on {value.device} cannot be saved; make it dense first")
        value = value.detach().resolve_conj().resolve_neg()
        identity = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        if identity not in moved:
            if value.untyped_storage().nbytes() != value.numel() * value.element_size():
                value = value.clone()
            moved[identity] = value.cpu()
        return moved[identity]

    def convert(value: Any, key: str) -> Any:
        match value:
            case Tensor():
                return tensor(value, key)
            case None | bool():
                return value
            case int():
                return int(value)
            case float():
                return float(value)
            case str():
                return str.__str__(value)
            case Mapping():
                wrong = [name for name in value if not isinstance(name, str | int) or isinstance(name, bool)]
                if wrong:
                    raise TypeError(f"{key}: the key {wrong[0]!r} is neither text nor an integer")
                return {convert(name, key): convert(item, f"{key}.{name}") for name, item in value.items()}
            case list():
                return [convert(item, f"{key}[{index}]") for index, item in enumerate(value)]
            case tuple():
                return tuple(convert(item, f"{key}[{index}]") for index, item in enumerate(value))
        raise TypeError(f"{key}: a {type(value).__name__} cannot be saved; only tensors and plain values can")

    return {name: convert(item, name) for name, item in state.items()}


def named_tensors(value: Any, key: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in a nested state with their keys, such as ``optimizer.state.0.step``; shared ones each time."""
    from torch import Tensor

    match value:
        case Tensor():
            yield key, value
        case dict():
            for name, item in value.items():
                yield from named_tensors(item, f"{key}.{name}")
        case list() | tuple():
            for index, item in enumerate(value):
                yield from named_tensors(item, f"{key}[{index}]")


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite; in one pass that keeps nothing (the extremes of a NaN are NaN)."""
    import torch

    if tensor.numel() == 0 or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.element_size() == 1:
        tensor = tensor.float()
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def refuse_non_finite(state: Mapping[str, Any]) -> None:
    """Raise TrainkitError where weights, averaged weights or the optimizer hold NaN or infinity."""
    tensors = (pair for part in _FINITE_PARTS for pair in named_tensors(state.get(part), part))
    found = [key for key, tensor in tensors if not is_finite(tensor)]
    if found:
        raise TrainkitError(f"not saved: NaN or infinity in {_some(found)}; earlier checkpoints are intact")


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


def check_fits(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Compare a state_dict with a model before the model is touched.

    Raises:
        CheckpointError: missing, extra, wrong shape, wrong dtype, not finite: the first five names of each.
    """
    own, report = model.state_dict(), match_weights(weights, model)
    shared = [name for name in own if name in weights]

    def differing(values: Iterable[tuple[str, Any, Any]]) -> list[str]:
        return [f"{name} ({a} in the checkpoint, {b} in the model)" for name, a, b in values if a != b]

    def dtype(tensor: Tensor) -> str:
        return str(tensor.dtype).removeprefix("torch.")

    problems = {
        "missing": report.missing,
        "not in the model": report.unexpected,
        "of another shape": differing((name, list(theirs), list(ours)) for name, theirs, ours in report.wrong_shape),
        "of another dtype": differing((name, dtype(weights[name]), dtype(own[name])) for name in shared),
        "with NaN or infinity": [name for name in shared if not is_finite(weights[name])],
    }
    texts = [f"{kind}: {_some(names)}" for kind, names in problems.items() if names]
    if texts:
        raise CheckpointError(f"the checkpoint does not fit the model, which was left as it was; {'; '.join(texts)}")
