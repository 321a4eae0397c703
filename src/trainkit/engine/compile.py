"""``training.compile``: the model as it is called in training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def compiled(model: nn.Module, mode: bool | str, *, say: Callable[[str], None]) -> Callable[[Tensor], Tensor]:
    """The model, compiled by ``torch.compile`` where ``mode`` asks for it: ``True``, or one of its modes.

    Where compiling fails (no C++ compiler, an operation that it does not know), that is said once and the plain model
    is used. ``reduce-overhead`` uses CUDA graphs.
    """
    if mode is False:
        return model
    program = torch.compile(model, mode="default" if mode is True else str(mode))
    works: list[bool] = []

    def forward(inputs: Tensor) -> Tensor:
        if works == [False]:
            return model(inputs)  # type: ignore[no-any-return]
        try:
            outputs: Tensor = program(inputs)
        except Exception as error:
            if works:  # it was compiled before: this is an error of the model itself
                raise
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            say(f"warning: training.compile: torch.compile failed, so the model runs uncompiled: {first_line}")
            works.append(False)
            return model(inputs)  # type: ignore[no-any-return]
        works[:] = [True]
        return outputs

    return forward
