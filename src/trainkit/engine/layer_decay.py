"""Learning rates that fall from the head down, by a factor for each layer (Clark et al., 2020: ELECTRA)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import nn

from trainkit.engine.parameter_groups import NORMS
from trainkit.models import head_prefixes

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """The factor of each parameter, by name: ``decay ** (layers above)``, so 1 for the head, as in timm."""
    layers = layers_of(model)
    last = max(layers.values())
    return {name: decay ** (last - layer) for name, layer in layers.items()}


def layers_of(model: nn.Module) -> dict[str, int]:
    """The layer of each parameter, by name, from 0 for the stem to the last one for the head.

    Networks of timm say themselves which parameters are a layer (``group_matcher``). In others, layers are the blocks
    in the order in which the model holds them: a norm layer and single parameters belong to the block before, and all
    of the head is one layer.
    """
    if hasattr(model, "group_matcher"):
        from timm.models import group_parameters

        matcher: Any = model.group_matcher
        found: dict[str, int] = group_parameters(model, matcher(coarse=False), reverse=True)
        return found
    of_parameter = _layers_by_block(model)
    return {name: of_parameter[parameter] for name, parameter in model.named_parameters()}


def _layers_by_block(model: nn.Module) -> dict[nn.Parameter, int]:
    layers: dict[nn.Parameter, int] = {}
    head = {parameter for prefix in head_prefixes(model) for parameter in model.get_submodule(prefix).parameters()}
    number = -1

    def visit(module: nn.Module, depth: int) -> None:
        nonlocal number
        is_chain = _is_chain(module, depth)
        inside = [parameter for parameter in module.parameters(recurse=not is_chain) if parameter not in head]
        if inside and not is_chain and not (number >= 0 and _is_norm(module)):
            number += 1
        layers.update({parameter: max(number, 0) for parameter in inside if parameter not in layers})
        if is_chain:
            for child in module.children():
                visit(child, depth + 1)

    visit(model, 0)
    return layers | dict.fromkeys(head, number + 1)


def _is_chain(module: nn.Module, depth: int) -> bool:
    """Whether a module is blocks one after the other, and not one itself: the model, a list of layers or of modules."""
    children = [child for child in module.children() if next(child.parameters(), None) is not None]
    if depth == 0:
        return True
    if isinstance(module, _CONTAINERS):
        return depth == 1 or any(next(child.children(), None) is not None for child in children)
    # A module around a list of equal blocks, as the encoder of a transformer. Two may be a branch of a block.
    return any(isinstance(child, _CONTAINERS) and _has_equal_blocks(child) for child in children)


def _has_equal_blocks(module: nn.Module) -> bool:
    kinds = Counter(type(child) for child in module.children() if not isinstance(child, nn.Sequential))
    return any(count > 2 and not kind.__module__.startswith("torch.nn.") for kind, count in kinds.items())


def _is_norm(module: nn.Module) -> bool:
    owners = [one for one in module.modules() if next(one.parameters(recurse=False), None) is not None]
    return all(isinstance(one, NORMS) for one in owners)
