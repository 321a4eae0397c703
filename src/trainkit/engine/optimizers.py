"""PyTorch's optimizers by name, in their fastest form that gives the same numbers, and the average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn, optim

from trainkit.engine.muon import MuonAndAdamW
from trainkit.engine.parameter_groups import ParameterGroup
from trainkit.runtime import lerp_, spare_the_compiler
from trainkit.system import owns_process

OptimizerType = Literal["sgd", "adam", "adamw", "nadam", "radam", "adafactor", "rmsprop", "adagrad", "muon", "lbfgs"]


def build_optimizer(
    type: OptimizerType,
    params: Iterable[nn.Parameter] | Iterable[ParameterGroup],
    *,
    device: torch.device | str,
    fused: bool | None = None,
    **knobs: Any,
) -> optim.Optimizer:
    """The optimizer of this type over ``params`` (in one group, or in groups), with PyTorch's argument names.

    ``fused=None`` takes the fused kernels (one launch a step) on CUDA and PyTorch's default elsewhere: on the CPU the
    fused kernels are faster for small models, but round differently from the plain formula in the last bit.
    """
    knobs = {name: tuple(value) if isinstance(value, list) else value for name, value in knobs.items()}
    if owns_process():
        spare_the_compiler()
    if fused is None:
        fused = torch.device(device).type == "cuda"
    # Left out where it is off: PyTorch then chooses its own default form.
    form: dict[str, Any] = {"fused": True} if fused else {}
    # PyTorch takes dictionaries beside parameters: its groups.
    taken: list[Any] = [item.for_torch() if isinstance(item, ParameterGroup) else item for item in params]
    match type:
        case "sgd":
            return optim.SGD(taken, **knobs, **form)
        case "adam":
            return optim.Adam(taken, **knobs, **form)
        case "adamw":
            return optim.AdamW(taken, **knobs, **form)
        case "adagrad":
            # PyTorch 2.11 has no fused Adagrad for CUDA, and says so at the first step only.
            return optim.Adagrad(taken, **knobs, **(form if torch.device(device).type == "cpu" else {}))
        case "nadam":
            return optim.NAdam(taken, **knobs)
        case "radam":
            return optim.RAdam(taken, **knobs)
        case "adafactor":
            return optim.Adafactor(taken, **knobs)
        case "muon":
            return MuonAndAdamW(taken, **knobs, fused=fused)
        case "rmsprop":
            return optim.RMSprop(taken, **knobs)
        case "lbfgs":
            return optim.LBFGS(taken, **knobs)


@torch.no_grad()
def match_parameters(optimizer: optim.Optimizer) -> None:
    """Bring a loaded state into the memory layout of the parameters, and its step counters to the right device.

    Fused kernels walk through the memory of weight and state side by side: with other strides (channels-last or not)
    they pair a weight with the state of another one, without a word on the CPU. A fused or capturable optimizer reads
    its step counter on the device, any other one on the CPU; the checkpoint may come from either. And fused SGD takes
    the momentum of all parameters of a group, or of none: where some were frozen in the run before, theirs is 0.
    """
    for group in optimizer.param_groups:
        on_device = group.get("fused") or group.get("capturable")
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for name, value in state.items():
                if not isinstance(value, torch.Tensor):
                    continue
                if name == "step":
                    state[name] = value.to(parameter.device if on_device else "cpu", torch.float32)
                elif value.shape == parameter.shape and value.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        if isinstance(optimizer, optim.SGD):
            without = [p for p in group["params"] if optimizer.state.get(p, {}).get("momentum_buffer") is None]
            for parameter in without if len(without) < len(group["params"]) else []:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


class Ema:
    """An exponential moving average of the weights: ``average = decay * average + (1 - decay) * weight``.

    The decay starts lower, ``(1 + steps) / (10 + steps)``, so that the first weights are forgotten (as in TensorFlow's
    ExponentialMovingAverage). Buffers such as batch-norm statistics are copied.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(buffer)
        self.num_updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "num_updates": self.num_updates, "decay": self.decay}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.num_updates = state["num_updates"]
