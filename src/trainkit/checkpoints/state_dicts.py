"""Nested states of tensors and plain values: made plain before a save, compared with a model after a load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def tensor_bytes(value: Any) -> int:
    """Bytes of the tensors in a nested state, shared ones counted each time."""
    from torch import Tensor

    match value:
        case Tensor():
            return value.untyped_storage().nbytes()
        case dict():
            return sum(map(tensor_bytes, value.values()))
        case list() | tuple():
            return sum(map(tensor_bytes, value))
    return 0


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
    from torch import Tensor

    found: list[str] = []

    def walk(value: Any, key: str) -> None:
        match value:
            case Tensor():
                if not is_finite(value):
                    found.append(key)
            case dict():
                for name, item in value.items():
                    walk(item, f"{key}.{name}")
            case list() | tuple():
                for index, item in enumerate(value):
                    walk(item, f"{key}[{index}]")

    for part in _FINITE_PARTS:
        walk(state.get(part), part)
    if found:
        raise TrainkitError(f"not saved: NaN or infinity in {_some(found)}; earlier checkpoints are intact")


def check_fits(weights: Mapping[str, Tensor], model: nn.Module, *, what: str = "the checkpoint") -> None:
    """Compare a state_dict with a model before the model is touched.

    Raises:
        CheckpointError: missing, extra, wrong shape, wrong dtype, not finite: the first five names of each.
    """
    own = model.state_dict()
    shared = [name for name in own if name in weights]

    def differing(attribute: Callable[[Tensor], Any]) -> list[str]:
        pairs = [(name, attribute(weights[name]), attribute(own[name])) for name in shared]
        return [f"{name} ({theirs} in {what}, {ours} in the model)" for name, theirs, ours in pairs if theirs != ours]

    problems = {
        "missing": [name for name in own if name not in weights],
        "not in the model": [name for name in weights if name not in own],
        "of another shape": differing(lambda tensor: list(tensor.shape)),
        "of another dtype": differing(lambda tensor: str(tensor.dtype).removeprefix("torch.")),
        "with NaN or infinity": [name for name in shared if not is_finite(weights[name])],
    }
    said = [f"{kind}: {_some(names)}" for kind, names in problems.items() if names]
    if said:
        raise CheckpointError(f"{what} does not fit the model, which was left as it was; {'; '.join(said)}")
