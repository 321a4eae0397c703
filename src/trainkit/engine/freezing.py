"""Which parameters are frozen: a function of the config and the step. No event, and no state in a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from trainkit.engine.parameter_groups import UnknownNameError, parameters_in
from trainkit.errors import Problem, ProblemsError
from trainkit.models import head_prefixes
from trainkit.wording import enumerated

BatchNormMode = Literal["auto", "train", "frozen"]
KEY = "fine_tuning"


@dataclass(frozen=True)
class Freezing:
    """What is frozen at each step.

    A frozen parameter has no gradient, so that the optimizer leaves it and its state alone, weight decay included.
    Modules whose parameters are all frozen are in eval mode: statistics stay, and dropout and stochastic depth do
    nothing.
    """

    until: Mapping[str, int | None]
    """The parameters that are frozen at first, by name: the first step that trains each; None: none does."""
    batch_norm: BatchNormMode = "auto"
    """``train``: statistics of frozen layers move too; ``frozen``: those of no layer do."""

    @cached_property
    def changes(self) -> frozenset[int]:
        """The steps before which something is unfrozen."""
        return frozenset(step for step in self.until.values() if step is not None)

    def stage(self, step: int) -> int:
        """The number of changes up to a step: between two steps of the same stage nothing is unfrozen."""
        return sum(change <= step for change in self.changes)

    def apply(self, model: nn.Module, step: int) -> None:
        """Put the model into training mode for a step, but for what is frozen then."""
        parameters = dict(model.named_parameters())
        for name, end in self.until.items():
            parameters[name].requires_grad_(end is not None and step >= end)
        model.train()
        eval_frozen(model, {parameters[name] for name in self.until if not parameters[name].requires_grad})
        if self.batch_norm != "auto":
            for module in model.modules():
                if isinstance(module, _NormBase):
                    module.train(self.batch_norm == "train")


def eval_frozen(module: nn.Module, frozen: Collection[nn.Parameter]) -> None:
    """Put the modules inside whose parameters are all frozen into eval mode.

    One without parameters goes with the one behind it, the last ones with the one before: dropout in front of a frozen
    layer does nothing, and dropout in front of the head does what it says.
    """
    behind: bool | None = None
    last: list[nn.Module] = []
    for child in reversed(list(module.children())):
        flags = [parameter in frozen for parameter in child.parameters()]
        if not flags and behind is None:
            last.append(child)
        elif all(flags) if flags else behind:
            child.eval()
        elif any(flags):
            eval_frozen(child, frozen)
        if flags:
            if behind is None and flags[-1]:
                for other in last:
                    other.eval()
            behind = flags[0]


def frozen_until(
    model: nn.Module,
    *,
    freeze: Literal["backbone"] | Sequence[str],
    unfreeze: Sequence[Literal["all"] | Sequence[str]] = (),
) -> dict[str, int | None]:
    """The parameters that are frozen at first, by name: which item of ``unfreeze`` ends that; None: none of them.

    Args:
        freeze: names of modules, or of parameters; ``backbone``: all that lies outside of the head. Parameters that
            the model itself does not train stay as they are.
        unfreeze: the same for each position, in rising order; ``all``: all that are still frozen.

    Raises:
        ProblemsError: a name that the model does not have or that is not frozen; nothing is left to train.
    """
    problems: list[Problem] = []

    def named(module: str, key: str) -> list[nn.Parameter]:
        try:
            return list(parameters_in(model, module).values())
        except UnknownNameError as error:
            problems.append(Problem(str(error), key))
            return []

    if freeze == "backbone":
        head = {parameter for prefix in head_prefixes(model) for parameter in model.get_submodule(prefix).parameters()}
        chosen = {parameter for parameter in model.parameters() if parameter not in head}
    else:
        names = enumerate(freeze)
        chosen = {parameter for at, name in names for parameter in named(name, f"{KEY}.freeze[{at}]")}
    until: dict[nn.Parameter, int | None] = {
        parameter: None for parameter in model.parameters() if parameter in chosen and parameter.requires_grad
    }
    known = not problems  # else nobody knows what is frozen
    if known:
        problems += _useless(model, until, freeze=freeze)
    for number, modules in enumerate(unfreeze):
        key = f"{KEY}.unfreeze[{number}].modules"
        if modules == "all":
            wanted = {key: list(until)}
        else:
            wanted = {f"{key}[{at}]": named(name, f"{key}[{at}]") for at, name in enumerate(modules)}
        for where, parameters in wanted.items():
            frozen = [parameter for parameter in parameters if parameter in until]
            still = [parameter for parameter in frozen if until[parameter] is None]
            if not still and (parameters or modules == "all") and known:
                why = f"it is unfrozen by unfreeze[{until[frozen[0]]}] already" if frozen else "it is not frozen"
                what = "nothing is frozen any more" if modules == "all" else why
                problems.append(Problem(f"{what}; remove it", where, others=(f"{KEY}.freeze",)))
            until |= dict.fromkeys(still, number)
    if problems:
        raise ProblemsError(problems)
    return {name: until[parameter] for name, parameter in model.named_parameters() if parameter in until}


def _useless(
    model: nn.Module, frozen: Collection[nn.Parameter], *, freeze: Literal["backbone"] | Sequence[str]
) -> list[Problem]:
    """Whether nothing is frozen, or nothing is left to train."""
    if not frozen and freeze == "backbone":
        message = f"the model has no backbone: all that it trains is in its head ({enumerated(head_prefixes(model))})"
        return [Problem(f"{message}; remove it", f"{KEY}.freeze")]
    if not frozen:
        return [Problem("the model itself does not train what is named here; remove it", f"{KEY}.freeze")]
    if all(parameter in frozen for parameter in model.parameters() if parameter.requires_grad):
        head = enumerated(head_prefixes(model))
        message = f"all parameters are frozen at first, so that nothing trains; leave the head out ({head})"
        return [Problem(message, f"{KEY}.freeze")]
    return []
