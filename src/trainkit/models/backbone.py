"""The head of a network, which is made for the data's classes, and the backbone, which is all the rest."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from trainkit.models.network import Network
from trainkit.runtime import forward


def head_prefixes(model: nn.Module) -> tuple[str, ...]:
    """The names of the modules that form the head.

    A model may say so itself, in its attribute ``head_prefixes``. Else it is the last part with parameters: ``head`` of
    a cnn, ``output`` of an mlp, the last layer with weights of a list of layers.
    """
    own = getattr(model, "head_prefixes", None)
    if own is not None:
        return tuple(own)
    module, prefix = model, ""
    while True:
        parts = [(name, part) for name, part in module.named_children() if next(part.parameters(), None) is not None]
        if not parts:
            return (prefix,) if prefix else ()
        name, module = parts[-1]
        prefix = f"{prefix}.{name}" if prefix else name
        if len(parts) > 1 or next(module.children(), None) is None:
            return (prefix,)


def head_of(model: nn.Module) -> nn.Module | None:
    """The layers from the head on, with dropout in front of it: features (N, ...) to outputs. They are the model's own.

    None where several modules form the head.
    """
    prefixes = head_prefixes(model)
    if len(prefixes) != 1:
        return None
    name = prefixes[0]
    own = set(model.get_submodule(name).parameters())
    while (outer := name.rpartition(".")[0]) and own.issuperset(model.get_submodule(outer).parameters()):
        name = outer
    holder = model.get_submodule(name.rpartition(".")[0])
    if not isinstance(holder, nn.Sequential):
        # Networks of timm, and torchvision's inceptions, have dropout before their last layer, often in their own code.
        share = getattr(model, "drop_rate", 0.0) or getattr(getattr(model, "dropout", None), "p", 0.0)
        layer = model.get_submodule(name)
        return nn.Sequential(nn.Dropout(share), layer) if share else layer
    layers = list(holder.named_children())
    start = next(at for at, (child, _) in enumerate(layers) if child == name.rpartition(".")[2])
    while start > 0 and isinstance(layers[start - 1][1], _DropoutNd):
        start -= 1
    if isinstance(holder, Network):
        return Network(layers[start:], config_keys={})
    return nn.Sequential(OrderedDict(layers[start:]))


class _HeadReached(Exception):
    pass


def features_of(model: nn.Module, inputs: Tensor, *, precision: str) -> Tensor:
    """What the model gives to its head: float32 (N, ...). ``head_of`` continues from there."""
    head = head_of(model)
    assert head is not None, "several modules form the head"
    own = set(model.modules())
    first = next(module for module in head.modules() if module in own)
    reached: list[Tensor] = []

    def stop(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        reached.append(arguments[0])
        raise _HeadReached

    handle = first.register_forward_pre_hook(stop)
    try:
        forward(model, inputs, precision=precision)
    except _HeadReached:
        return reached[0].float()
    finally:
        handle.remove()
    raise ValueError("the model does not call its head")
