"""Weight decay that follows a schedule."""

from __future__ import annotations

import torch
from torch import optim


class ScheduledDecay:
    """The weight decay of each of an optimizer's groups, times a factor that ``set_factor`` sets for the next step.

    AdamW's own decay, ``weight *= 1 - lr * decay``, is taken by ``apply``, just before the optimizer's step: by factors
    that lie on the device, where a CUDA graph reads them. Other optimizers add their decay to the gradient, inside of
    kernels that take it from the host.
    """

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.decays = [float(group["weight_decay"]) for group in optimizer.param_groups]
        self.multipliers: list[torch.Tensor] = []
        if isinstance(optimizer, optim.AdamW):
            for group in optimizer.param_groups:
                group["weight_decay"] = 0.0
                self.multipliers.append(torch.ones((), device=group["params"][0].device))

    def set_factor(self, factor: float) -> None:
        """After the learning rates of the step are set."""
        for number, (group, decay) in enumerate(zip(self.optimizer.param_groups, self.decays, strict=True)):
            if self.multipliers:
                self.multipliers[number].fill_(1 - group["lr"] * decay * factor)
            else:
                group["weight_decay"] = decay * factor

    @torch.no_grad()
    def apply(self) -> None:
        """Decay the weights of AdamW, but where the device leaves out the step since something was not finite.

        Frozen weights are left alone, as AdamW leaves those without a gradient.
        """
        halted = getattr(self.optimizer, "found_inf", None)
        for group, multiplier, decay in zip(self.optimizer.param_groups, self.multipliers, self.decays, strict=False):
            decayed = [parameter for parameter in group["params"] if parameter.requires_grad]
            if decay > 0 and decayed:
                taken = multiplier if halted is None else torch.where(halted == 0, multiplier, 1.0)
                torch._foreach_mul_(decayed, taken)
