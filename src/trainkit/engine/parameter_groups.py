"""A model's parameters in groups, each with a factor on the learning rate and a weight decay of its own."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn, optim
from torch.nn.modules.batchnorm import _NormBase

from trainkit.errors import Problem, ProblemsError
from trainkit.wording import closest, listed

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class GroupSpec:
    """What the config says about some modules. ``weight_decay=None`` is the optimizer's."""

    modules: Sequence[str]
    lr_scale: float = 1.0
    weight_decay: float | None = None


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with the same learning rate and weight decay."""

    parameters: Mapping[str, nn.Parameter]
    """By their names, in the model's order."""
    modules: tuple[str, ...]
    """The largest modules that lie in the group as a whole, and the names of other parameters; ``()`` for all."""
    lr_scale: float
    """The group's learning rate is that of the schedule times this."""
    weight_decay: float | None
    """None for an optimizer that has none."""
    frozen: str | None = None
    """``until 3ep``, or ``for the whole run``; None where it trains from the first step."""
    is_matrix: bool | None = None
    """Whether Muon takes them; None for other optimizers."""

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters.values())

    def for_torch(self) -> dict[str, Any]:
        """The group as PyTorch's optimizers take it."""
        decay = {} if self.weight_decay is None else {"weight_decay": self.weight_decay}
        kind = {} if self.is_matrix is None else {"is_matrix": self.is_matrix}
        return {"params": list(self.parameters.items()), "lr_scale": self.lr_scale, **decay, **kind}


def group_parameters(
    model: nn.Module,
    *,
    weight_decay: float | None,
    no_decay: Literal["none", "norm_and_bias"] | None = None,
    groups: Sequence[GroupSpec] = (),
    scales: Mapping[str, float] | None = None,
    frozen: Mapping[str, str] | None = None,
    matrices: Collection[str] | None = None,
) -> list[ParameterGroup]:
    """All parameters of the model in groups, in the order of the first parameter of each; a shared one comes once.

    A module may carry ``lr_scale``: a factor on the learning rate of its parameters and of those of the modules in it,
    or a mapping of the names of its own parameters to such factors. The factors of nested modules and of the config
    are multiplied.

    Args:
        no_decay: ``norm_and_bias`` sets the weight decay of biases and of norm layers to 0, whatever ``groups`` say.
        scales: further factors on the learning rate, by name.
        frozen: until when parameters are frozen, by name. Those of a group begin to train together, since the fused
            kernels of SGD need the momentum of all of a group, or of none.
        matrices: the parameters that Muon takes, by name; None for other optimizers.

    Raises:
        ProblemsError: a name that the model does not have, or a parameter in two groups.
    """
    spec_of = _match(model, groups)
    members: dict[tuple[float, float | None, str | None, bool | None], dict[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        spec = spec_of.get(parameter, GroupSpec(()))
        decay = weight_decay if spec.weight_decay is None else spec.weight_decay
        if no_decay == "norm_and_bias" and is_norm_or_bias(model, name):
            decay = 0.0
        lr_scale = spec.lr_scale * own_lr_scale(model, name) * (scales or {}).get(name, 1.0)
        is_matrix = None if matrices is None else name in matrices
        key = (lr_scale, decay, (frozen or {}).get(name), is_matrix)
        members.setdefault(key, {})[name] = parameter
    return [ParameterGroup(inside, covering_names(model, inside), *key) for key, inside in members.items()]


def is_norm_or_bias(model: nn.Module, name: str) -> bool:
    """Whether the parameter of this name belongs to a norm layer, or is added: ``bias``, ``in_proj_bias``."""
    owner, _, own_name = name.rpartition(".")
    return own_name == "bias" or own_name.endswith("_bias") or isinstance(model.get_submodule(owner), NORMS)


def own_lr_scale(model: nn.Module, name: str) -> float:
    """The product of the factors that the modules around the parameter of this name carry."""
    pieces = name.split(".")
    factors = []
    for end in range(len(pieces)):
        factor = getattr(model.get_submodule(".".join(pieces[:end])), "lr_scale", 1.0)
        if isinstance(factor, Mapping):
            factor = factor.get(pieces[-1], 1.0) if end == len(pieces) - 1 else 1.0
        factors.append(float(factor))
    return math.prod(factors)


def _match(model: nn.Module, groups: Sequence[GroupSpec]) -> dict[nn.Parameter, GroupSpec]:
    """The group of each parameter that one names."""
    if not groups:
        return {}
    found: dict[nn.Parameter, tuple[int, str]] = {}
    problems = []
    for number, spec in enumerate(groups):
        for position, module in enumerate(spec.modules):
            key = f"optimizer.groups[{number}].modules[{position}]"
            try:
                inside = parameters_in(model, module)
            except UnknownNameError as error:
                problems.append(Problem(str(error), key))
                continue
            taken = {name: found[parameter] for name, parameter in inside.items() if parameter in found}
            other = next(((name, where) for name, where in taken.items() if where[0] != number), None)
            if other is not None:
                name, (first, first_key) = other
                message = (
                    f"{name} is in group {first} already: a parameter can be in one group only; remove one of them"
                )
                problems.append(Problem(message, key, others=(first_key,)))
            found |= {parameter: (number, key) for parameter in inside.values() if parameter not in found}
    if problems:
        raise ProblemsError(problems)
    return {parameter: groups[number] for parameter, (number, _) in found.items()}


class UnknownNameError(LookupError):
    """A model has no module with parameters, and no parameter, of this name."""


def parameters_in(model: nn.Module, module: str) -> dict[str, nn.Parameter]:
    """The parameters in the module of this name, or the one of this name.

    Raises:
        UnknownNameError: there are none; the message says what may have been meant.
    """
    by_name = dict(model.named_parameters(remove_duplicate=False))
    inside = {name: parameter for name, parameter in by_name.items() if module in _prefixes(name)}
    if not inside:
        known = list(dict.fromkeys(prefix for name in by_name for prefix in _prefixes(name)))
        raise UnknownNameError(_unknown(model, module, known))
    return inside


def _unknown(model: nn.Module, module: str, known: Sequence[str]) -> str:
    if module and any(name == module for name, _ in model.named_modules()):
        return f"the module {module} has no parameters; remove it"
    near = closest(module, known)
    top = listed([name for name in known if "." not in name], quoted=False)
    hint = f"did you mean {near}?" if near else f"its parts are {top}"
    return f"the model has no module or parameter of this name, got {module or repr(module)}; {hint}"


def _prefixes(name: str) -> list[str]:
    """``a``, ``a.b`` and ``a.b.weight`` for ``a.b.weight``."""
    pieces = name.split(".")
    return [".".join(pieces[: end + 1]) for end in range(len(pieces))]


def covering_names(model: nn.Module, inside: Mapping[str, nn.Parameter]) -> tuple[str, ...]:
    """The shortest names that stand for these parameters and no others; () for all of the model's."""
    mine = set(inside.values())
    outside = [name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter not in mine]
    if not outside:
        return ()
    mixed = {prefix for name in outside for prefix in _prefixes(name)}
    return tuple(dict.fromkeys(next(p for p in _prefixes(name) if p not in mixed) for name in inside))


def load_by_name(optimizer: optim.Optimizer, saved: Mapping[str, Any], *, names: Sequence[str]) -> None:
    """Load a saved state into an optimizer whose groups may be others: each parameter finds its own by its name.

    Args:
        names: those of the model's parameters, whose order a state without names has.
    """
    places: dict[str, tuple[Mapping[str, Any], int]] = {}
    for group in saved["param_groups"]:
        places |= {name: (group, index) for name, index in _named(group, names)}
    state: dict[int, Any] = {}
    groups = []
    for group in optimizer.state_dict()["param_groups"]:
        named = _named(group, names)
        state |= {index: saved["state"][old] for name, index in named if (old := places[name][1]) in saved["state"]}
        mine = {key: group[key] for key in ("params", "param_names") if key in group}
        groups.append({**places[named[0][0]][0], **mine})
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _named(group: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, int]]:
    return list(zip(group.get("param_names", names), group["params"], strict=True))
