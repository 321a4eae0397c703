"""``torch.compile`` for the training model: what fails to compile runs as it is, and CUDA graphs keep their memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from trainkit.runtime import memory_that_ran_out

Result = TypeVar("Result")

WITH_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
"""The modes of ``torch.compile`` whose outputs and gradients lie in memory that the next step overwrites."""


class CompiledModel:
    """The forward pass of training, compiled. Where compiling fails, ``say`` gets one line and it runs as it is.

    Args:
        forward: the pass as it is.
        program: the pass as ``torch.compile`` made it, which compiles at the first call with each shape.
        model: whose buffers the pass updates.
        marks_steps: tell CUDA graphs where a pass begins: what the one before returned may be overwritten.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        program: Callable[[Tensor], Tensor],
        *,
        model: nn.Module,
        say: Callable[[str], None],
        marks_steps: bool = False,
    ) -> None:
        self.forward, self.program, self.model, self.say = forward, program, model, say
        self.marks_steps = marks_steps
        self.failed = False
        self.compiled_for: set[torch.Size] = set()
        self.stage = 0

    def __call__(self, inputs: Tensor) -> Tensor:
        if self.failed:
            return self.forward(inputs)
        if self.marks_steps:
            torch.compiler.cudagraph_mark_step_begin()
        return self.program(inputs)

    def attempt(self, work: Callable[[], Result], shape: torch.Size, *, stage: int = 0) -> Result:
        """What ``work`` returns, a forward and backward pass over a batch of this shape.

        At the first batch of a shape either pass may be compiled, and fail; ``work`` is then done again uncompiled,
        with the buffers as they were. Later errors, and memory that runs out, are the model's own.

        Where other parameters train than before, in another ``stage``, everything is compiled anew: code of the stages
        before counts for PyTorch's limit, and a run that resumes would have less of it.
        """
        if stage != self.stage and not self.failed:
            torch.compiler.reset()
            self.compiled_for.clear()
        self.stage = stage
        if self.failed or shape in self.compiled_for:
            return work()
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        try:
            result = work()
        except Exception as error:
            if memory_that_ran_out(error) is not None:
                raise
            self.failed = True
            self.say(
                f"warning: training.compile: torch.compile failed, so the model runs uncompiled: {first_line(error)}"
            )
        else:
            self.compiled_for.add(shape)
            return result
        with torch.no_grad():
            for buffer, value in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(value)
        return work()


def compiled(
    forward: Callable[[Tensor], Tensor],
    mode: str,
    *,
    model: nn.Module,
    say: Callable[[str], None],
    deterministic: bool = True,
) -> CompiledModel:
    """The forward pass compiled by ``torch.compile`` in one of its modes.

    Each shape gets code of its own: with code for any size, which PyTorch makes at the second size that it meets, a run
    that resumes would use other code than the whole run.

    Args:
        deterministic: choose kernels without timing them, where that may change the numbers, as another run of the same
            program would have other times. ``max-autotune`` is a wish for timing, and keeps it.
    """
    options = {} if mode == "max-autotune" else {"deterministic": deterministic}
    on_cuda = any(parameter.is_cuda for parameter in model.parameters())
    program = torch.compile(
        forward, options={**torch._inductor.list_mode_options(mode, dynamic=False), **options}, dynamic=False
    )
    return CompiledModel(forward, program, model=model, say=say, marks_steps=on_cuda and mode in WITH_CUDA_GRAPHS)


def first_line(error: Exception) -> str:
    """The first line of its text, or its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
