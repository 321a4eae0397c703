"""The head of a network, which is made for the data's classes, and the backbone, which is all the rest."""

from __future__ import annotations

from torch import nn


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
